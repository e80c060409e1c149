// Package adminv1 contains the messages and services of the administration API, which are
// generated from the .proto files of this directory. The daemon serves the API on the
// socket of the key admin_socket. docs/admin-api.md describes its rules.
package adminv1

//go:generate go run -C ../../tools/protogen . -root ../.. admin/v1
