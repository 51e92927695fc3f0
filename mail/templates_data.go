package mail

import (
	"slices"
	"strings"
)

// Variable is one below .data that a template uses.
type Variable struct {
	Name     string // the path, "link" or "order.number"
	Required bool   // a request without it is refused, unless another of its alternatives is there
	List     bool
}

// Variables returns the variables below .data that a template uses in the language
// that fits a locale, sorted by name; none for a template that there isn't.
func (t *Templates) Variables(name, locale string) []Variable {
	c, ok := t.find(name, locale)
	if !ok {
		return nil
	}
	var all []Variable
	for _, v := range c.uses {
		path := strings.Join(v.path, ".")
		i, known := slices.BinarySearchFunc(all, path, func(a Variable, b string) int { return strings.Compare(a.Name, b) })
		if !known {
			all = slices.Insert(all, i, Variable{Name: path})
		}
		all[i].List = all[i].List || v.list
		for _, n := range c.needs {
			all[i].Required = all[i].Required || slices.Contains(n, path)
		}
	}
	return all
}
