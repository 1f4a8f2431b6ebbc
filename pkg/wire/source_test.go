package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cases lists the types that the switch of a function knows.
func cases(t *testing.T, file, function string) (types []string) {
	t.Helper()
	values := map[string]string{} // of constants
	for _, f := range sources(t) {
		for name, v := range constants(f, "") {
			values[name] = v
		}
	}
	ast.Inspect(declared(t, file, function), func(n ast.Node) bool {
		if clause, ok := n.(*ast.CaseClause); ok {
			for _, e := range clause.List {
				switch e := e.(type) {
				case *ast.Ident:
					types = append(types, values[e.Name])
				case *ast.BasicLit:
					types = append(types, strings.Trim(e.Value, `"`))
				}
			}
		}
		return true
	})
	return slices.DeleteFunc(types, func(typ string) bool { return typ == "" })
}

// typed lists the values of the constants of a type.
func typed(t *testing.T, typ string) (values []string) {
	t.Helper()
	for _, f := range sources(t) {
		values = append(values, slices.Collect(maps.Values(constants(f, typ)))...)
	}
	return values
}

// constants returns the constants of a file that are texts, by name; of a type if one is named.
func constants(f *ast.File, typ string) map[string]string {
	all := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			of, _ := v.Type.(*ast.Ident)
			for i, name := range v.Names {
				if i < len(v.Values) && (typ == "" || of != nil && of.Name == typ) {
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						all[name.Name] = strings.Trim(lit.Value, `"`)
					}
				}
			}
		}
		return true
	})
	return all
}

// exported lists the functions of this package with a prefix.
func exported(t *testing.T, prefix string) (names []string) {
	t.Helper()
	for _, f := range sources(t) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, prefix) {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names
}

func declared(t *testing.T, file, function string) *ast.FuncDecl {
	t.Helper()
	for _, d := range sources(t)[file].Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == function {
			return fn
		}
	}
	t.Fatalf("%s has no %s", file, function)
	return nil
}

// sources parses this package.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*ast.File{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if all[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
