package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// The formats of the flag --output, which are the values of Output.Format.
const (
	FormatTable = "table"
	FormatJSON  = "json"
	FormatYAML  = "yaml"
)

// Output prints the result of a command in the format that the flag --output selects.
type Output struct{ Format string }

// AddFlag adds the flag --output to a command.
func (o *Output) AddFlag(cmd *cobra.Command) {
	o.Format = FormatTable
	cmd.Flags().VarP(o, "output", "o", "`format` of the output: table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{FormatTable, FormatJSON, FormatYAML}, cobra.ShellCompDirectiveNoFileComp))
}

// String returns the format.
func (o *Output) String() string { return o.Format }

// Type returns the name of the values of the flag.
func (o *Output) Type() string { return "format" }

// Set sets the format.
func (o *Output) Set(format string) error {
	switch format {
	case FormatTable, FormatJSON, FormatYAML:
		o.Format = format
		return nil
	}
	return fmt.Errorf("must be table, json or yaml")
}

// Print writes a value. The table is written by the function writeTable; JSON and YAML
// contain the value itself, which is a message of protobuf or a value that encoding/json
// accepts. The names in JSON and YAML are part of the interface of the command.
func (o *Output) Print(w io.Writer, value any, writeTable func(t *Table)) error {
	if o.Format == FormatTable {
		t := NewTable(w)
		writeTable(t)
		return t.Flush()
	}
	b, err := marshalJSON(value)
	if err != nil {
		return err
	}
	if o.Format == FormatYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	}
	_, err = w.Write(b)
	return err
}

// marshalJSON returns a value as indented JSON with a newline at the end. Messages have the
// field names of protobuf's JSON mapping and contain also fields with default values.
func marshalJSON(value any) ([]byte, error) {
	var b []byte
	var err error
	if m, ok := value.(proto.Message); ok {
		b, err = protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	} else {
		b, err = json.Marshal(value)
	}
	if err != nil {
		return nil, err
	}
	// protojson deliberately varies the white space of its output.
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Table writes rows of cells in aligned columns. It keeps the first error.
type Table struct {
	w   *tabwriter.Writer
	err error
}

// NewTable returns a table that Flush writes to w.
func NewTable(w io.Writer) *Table { return &Table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// Row writes a row. Cells are printed as fmt.Sprint prints them; an empty cell is printed
// as "-", so that the columns can be counted.
func (t *Table) Row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		// Tabs and newlines would change the layout of the table.
		texts[i] = strings.Map(layoutToSpace, fmt.Sprint(c))
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	t.print(strings.Join(texts, "\t") + "\n")
}

// Line writes a line without columns, for example a heading. It ends the columns of the
// rows before it.
func (t *Table) Line(format string, args ...any) {
	t.print(strings.Map(layoutToSpace, fmt.Sprintf(format, args...)) + "\n")
}

func (t *Table) print(s string) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, s)
	}
}

// Flush writes the rest of the table, and returns the first error of the table.
func (t *Table) Flush() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}

func layoutToSpace(r rune) rune {
	if r == '\t' || r == '\n' || r == '\v' || r == '\f' || r == '\r' {
		return ' '
	}
	return r
}
