// Package mountopt builds options of mount(2).
package mountopt

// ContextKey is the key of the option that gives all files of a file system one SELinux
// label.
const ContextKey = "context"

// Context returns the SELinux context option for mount(2). The options of mount(2) are
// separated by commas, and a label can contain commas ("…:s0:c1,c2"). Therefore Context
// quotes the label, and the kernel removes the quotation marks.
//
// Do not use Context with fsconfig(2), which has one value per call and would keep the
// quotation marks. Use ContextKey with the unquoted label instead.
func Context(label string) string { return ContextKey + `="` + label + `"` }
