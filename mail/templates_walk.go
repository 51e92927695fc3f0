package mail

import (
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
)

// need is a variable that a template can't do without: the path below .data of each
// alternative, e.g. "link", or "pin" and "code".
type need []string

// variable is one below .data that a template uses.
type variable struct {
	path []string
	list bool // it is ranged over
}

// rootNames are the variables that a template sees.
var rootNames = []string{
	"data", "to", "to_name", "tenant", "tenant_name", "person_id", "kind", "ref", "lang",
	"sender", "from", "until", "until_date", "subject", "preheader",
}

// walk collects from parse trees which variables below .data they use and which they
// need, and finds variables that do not exist.
type walk struct {
	needs []need
	uses  []variable
	err   error // the first unknown variable

	trees   map[string]*parse.Tree
	tree    *parse.Tree    // the one being walked
	visited map[visit]bool // so that a cycle ends
}

// visit is a template called from a place.
type visit struct {
	name string
	from scope
}

// scope is what the walk knows of the place where it is.
type scope struct {
	dot      bool // . is the whole data, not changed by with or range
	dollar   bool // $ is the whole data
	required bool // the place is executed whatever the data
}

// from walks the template of a name and whatever it calls.
func (w *walk) from(trees map[string]*parse.Tree, name string) error {
	w.trees, w.visited = trees, map[visit]bool{}
	w.call(visit{name, scope{dot: true, dollar: true, required: true}})
	return w.err
}

func (w *walk) call(v visit) {
	if w.visited[v] {
		return
	}
	w.visited[v] = true
	caller := w.tree
	w.tree = w.trees[v.name]
	w.list(w.tree.Root, v.from)
	w.tree = caller
}

func (w *walk) list(list *parse.ListNode, s scope) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			w.pipe(n.Pipe, s)
		case *parse.IfNode:
			w.branch(&n.BranchNode, s, s.dot)
		case *parse.WithNode:
			w.branch(&n.BranchNode, s, false)
		case *parse.RangeNode:
			w.branch(&n.BranchNode, s, false)
			w.rangesOver(n.Pipe, s)
		case *parse.TemplateNode:
			w.pipe(n.Pipe, s)
			if w.trees[n.Name] == nil {
				w.fail(n, "there is no template %q", n.Name)
				continue
			}
			whole := s.passesWhole(n.Pipe)
			w.call(visit{n.Name, scope{dot: whole, dollar: whole, required: s.required}})
		}
	}
}

// branch: what decides whether something is said is optional, and so is what is said
// then. with and range change the dot of their first part.
func (w *walk) branch(b *parse.BranchNode, s scope, dotAfter bool) {
	s.required = false
	w.pipe(b.Pipe, s)
	w.list(b.ElseList, s)
	s.dot = dotAfter
	w.list(b.List, s)
}

// passesWhole reports whether a call hands the whole data on.
func (s scope) passesWhole(p *parse.PipeNode) bool {
	if p == nil || len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	switch n := p.Cmds[0].Args[0].(type) {
	case *parse.DotNode:
		return s.dot
	case *parse.VariableNode:
		return s.dollar && len(n.Ident) == 1 && n.Ident[0] == "$"
	}
	return false
}

func (w *walk) pipe(p *parse.PipeNode, s scope) {
	if p == nil {
		return
	}
	for _, c := range p.Cmds {
		w.command(c, s)
	}
}

// command: functions that choose or compare work without a value; of or's arguments one
// is enough, and a constant or a variable that is always there makes the others optional.
func (w *walk) command(c *parse.CommandNode, s scope) {
	f, _ := c.Args[0].(*parse.IdentifierNode)
	if f == nil || !slices.Contains([]string{"or", "and", "not", "eq", "ne", "len"}, f.Ident) {
		for _, arg := range c.Args {
			w.arg(arg, s)
		}
		return
	}
	var alternatives need
	for _, arg := range c.Args[1:] {
		path := w.arg(arg, scope{dot: s.dot, dollar: s.dollar})
		if path == "" {
			alternatives = nil
			s.required = false
			continue
		}
		alternatives = append(alternatives, path)
	}
	if f.Ident == "or" && s.required && len(alternatives) > 0 {
		w.need(alternatives)
	}
}

// arg notes a variable and returns its path below .data, "" if it is none.
func (w *walk) arg(n parse.Node, s scope) string {
	var ident []string
	switch n := n.(type) {
	case *parse.FieldNode:
		if s.dot {
			ident = n.Ident
		}
	case *parse.VariableNode:
		if s.dollar && n.Ident[0] == "$" {
			ident = n.Ident[1:]
		}
	case *parse.ChainNode:
		w.arg(n.Node, s)
	case *parse.PipeNode:
		w.pipe(n, s)
	}
	switch {
	case len(ident) == 0:
		return ""
	case !slices.Contains(rootNames, ident[0]):
		w.fail(n, "there is no variable .%s; the request's own are below .data", ident[0])
		return ""
	case ident[0] != "data" || len(ident) == 1:
		return ""
	}
	w.use(ident[1:])
	path := strings.Join(ident[1:], ".")
	if s.required {
		w.need(need{path})
	}
	return path
}

// use returns the entry of a variable, a new one if need be.
func (w *walk) use(path []string) *variable {
	i := slices.IndexFunc(w.uses, func(v variable) bool { return slices.Equal(v.path, path) })
	if i < 0 {
		i = len(w.uses)
		w.uses = append(w.uses, variable{path: path})
	}
	return &w.uses[i]
}

// rangesOver notes that a variable is a list.
func (w *walk) rangesOver(p *parse.PipeNode, s scope) {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return
	}
	if f, ok := p.Cmds[0].Args[0].(*parse.FieldNode); ok && s.dot && f.Ident[0] == "data" && len(f.Ident) > 1 {
		w.use(f.Ident[1:]).list = true
	}
}

func (w *walk) need(n need) {
	if !slices.ContainsFunc(w.needs, func(have need) bool { return slices.Equal(have, n) }) {
		w.needs = append(w.needs, n)
	}
}

func (w *walk) fail(n parse.Node, format string, args ...any) {
	if w.err == nil {
		at, _ := w.tree.ErrorContext(n)
		w.err = fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...))
	}
}
