package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
)

// maxProblems bounds how many errors are reported for one architecture.
const maxProblems = 20

// checker checks the packages of one architecture.
type checker struct {
	sizes    types.Sizes
	fset     *token.FileSet
	done     map[string]*types.Package // by import path
	problems []string
}

// check returns the errors in the packages that are not only dependencies.
func check(arch string, list []listed) []string {
	c := &checker{sizes: types.SizesFor("gc", arch), fset: token.NewFileSet(), done: make(map[string]*types.Package)}
	if c.sizes == nil {
		return []string{"the architecture is unknown"}
	}
	for _, p := range list {
		if p.Error != nil && !p.DepOnly {
			c.report(p.Error.Err)
		}
		// "go list" adds a main package for each package with tests. The go command
		// generates its source.
		if !strings.HasSuffix(p.ImportPath, ".test") {
			c.check(p)
		}
		if len(c.problems) >= maxProblems {
			break
		}
	}
	return c.problems
}

func (c *checker) report(problem string) { c.problems = append(c.problems, problem) }

func (c *checker) check(p listed) {
	path, _, _ := strings.Cut(p.ImportPath, " ") // "path [path.test]" is the variant of a test
	if path == "unsafe" {
		c.done[path] = types.Unsafe
		return
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil && !p.DepOnly {
			c.report(err.Error())
		}
		if f != nil {
			files = append(files, f)
		}
	}
	conf := types.Config{
		Sizes:            c.sizes,
		IgnoreFuncBodies: p.DepOnly,
		Importer:         importer{c.done, p.ImportMap},
		Error: func(err error) {
			if !p.DepOnly {
				c.report(err.Error())
			}
		},
	}
	if p.Module != nil && p.Module.GoVersion != "" {
		conf.GoVersion = "go" + p.Module.GoVersion
	}
	// Error has reported the error of Check.
	pkg, _ := conf.Check(path, c.fset, files, nil)
	c.done[p.ImportPath] = pkg
}

// importer finds packages that have been checked.
type importer struct {
	done    map[string]*types.Package
	renamed map[string]string // the path that an import of one package means, if the path differs
}

// Import implements [types.Importer].
func (i importer) Import(path string) (*types.Package, error) {
	if to := i.renamed[path]; to != "" {
		path = to
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("package %s was not listed", path)
}
