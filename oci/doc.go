// Package oci builds OCI runtime specs and calls OCI runtimes. The building
// (spec*.go) is pure: data in, a specs.Spec out. The calling (runtime*.go) is
// impure and knows nothing of how a spec came about.
package oci
