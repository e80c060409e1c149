// Package mountopt makes mount options.
package mountopt

// Context returns the option of mount(2) that gives all files of a file system the
// SELinux label. The options of mount(2) are one string with commas between them, and
// a label can contain commas ("…:s0:c1,c2"), so the label is quoted. The kernel removes
// the quotation marks. fsconfig(2) takes each value by itself and would take the
// quotation marks for a part of the label: see ContextKey.
func Context(label string) string { return ContextKey + `="` + label + `"` }

// ContextKey is the key of that option. With fsconfig(2), its value is the label as it is.
const ContextKey = "context"
