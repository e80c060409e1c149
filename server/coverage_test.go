package server

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// coveragePage has a line for each RPC and for each field of a request. The tests
// compare the page with the protobuf descriptors of the CRI and with the tests in
// the repository.
const coveragePage = "../docs/cri-coverage.md"

// The headings of the tables on the page.
const (
	rpcTable     = "RPCs"
	fieldTable   = "Request fields"
	ignoredTable = "Fields without effect"
)

func TestCoveragePageIsComplete(t *testing.T) {
	tables := readTables(t, coveragePage)
	rpcs, fields := describedNames()
	sameNames(t, rpcTable, rpcs, slices.Collect(maps.Keys(tables[rpcTable])))
	listed := slices.Concat(slices.Collect(maps.Keys(tables[fieldTable])), slices.Collect(maps.Keys(tables[ignoredTable])))
	sameNames(t, fieldTable+" and "+ignoredTable, fields, listed)
	for name, cells := range tables[ignoredTable] {
		if len(cells) != 1 || len(cells[0]) < 10 {
			t.Errorf("%s has no effect, and the page does not give the reason", name)
		}
	}
}

func TestCoveragePageNamesExistingTests(t *testing.T) {
	tests := testNames(t, "..")
	quoted := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	tables := readTables(t, coveragePage)
	for _, table := range []string{rpcTable, fieldTable} {
		for name, cells := range tables[table] {
			if len(cells) != 2 || cells[0] == "" {
				t.Errorf("%s: got columns %q, want a description and the tests", name, cells)
				continue
			}
			found := quoted.FindAllStringSubmatch(cells[1], -1)
			if len(found) == 0 {
				t.Errorf("%s: the page names no test", name)
			}
			for _, f := range found {
				if !tests[f[1]] {
					t.Errorf("%s: test %s does not exist", name, f[1])
				}
			}
		}
	}
}

// describedNames returns the methods of both services and the fields of all messages
// in their requests.
func describedNames() (rpcs, fields []string) {
	seen := map[protoreflect.FullName]bool{}
	services := cri.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			rpcs = append(rpcs, string(methods.Get(j).Name()))
			fields = append(fields, fieldsOf(methods.Get(j).Input(), seen)...)
		}
	}
	return rpcs, fields
}

// fieldsOf returns the fields of a message and of the messages in it. It skips
// messages that it has seen.
func fieldsOf(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (fields []string) {
	if seen[m.FullName()] || m.IsMapEntry() {
		return nil
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		fields = append(fields, string(m.Name())+"."+string(f.Name()))
		if f.Message() != nil {
			fields = append(fields, fieldsOf(f.Message(), seen)...)
		}
	}
	return fields
}

// readTables reads the tables of a Markdown page. The keys are the heading and the
// first column without backquotes, the value has the other columns.
func readTables(t *testing.T, page string) map[string]map[string][]string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	tables, heading := map[string]map[string][]string{}, ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
			tables[heading] = map[string][]string{}
			continue
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		var cells []string
		for c := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		name := strings.Trim(cells[0], "`")
		if _, repeated := tables[heading][name]; repeated {
			t.Errorf("%s is repeated under %q", name, heading)
		}
		tables[heading][name] = cells[1:]
	}
	return tables
}

// sameNames fails the test unless got has the names of want, each once.
func sameNames(t *testing.T, what string, want, got []string) {
	t.Helper()
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s: the page lacks %s", what, name)
		}
	}
	for i, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s: the CRI does not have %s", what, name)
		}
		if slices.Contains(got[:i], name) {
			t.Errorf("%s: %s is listed twice", what, name)
		}
	}
}

// testNames returns the names of all tests below a directory.
func testNames(t *testing.T, top string) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	names := map[string]bool{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".cache" || d.Name() == "bin"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
