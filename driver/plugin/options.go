package plugin

import (
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/plugins/shared/hclspec"
)

// Option is one option of a config block. The schemas that Nomad gets and the tables of README.md are made of the same
// list of options, and a test holds the structs that are decoded against it.
type Option struct {
	Name string
	// Kind is one of the constants below.
	Kind Kind
	// Default is what holds when the option is not given, in words for the table; empty for none.
	Default string
	// Doc is one line for the table.
	Doc string
	// Options are those of a block.
	Options []Option
}

// Kind is the form of an option's value.
type Kind string

// Kinds of options. Pairs are written as a block or a map (ulimit { nofile = "1024" }). A Block may be given once, Blocks
// as often as one likes, and Named blocks with a label each.
const (
	String  Kind = "string"
	Number  Kind = "number"
	Bool    Kind = "bool"
	Strings Kind = "list(string)"
	Pairs   Kind = "list(map(string))"
	Block   Kind = "block"
	Blocks  Kind = "blocks"
	Named   Kind = "named blocks"
)

// pairs is the value of an option of kind Pairs, which Nomad decodes as a list of maps.
type pairs []map[string]string

// merged returns the pairs as one map, nil when there are none.
func (p pairs) merged() map[string]string {
	var all map[string]string
	for _, m := range p {
		for name, value := range m {
			if all == nil {
				all = map[string]string{}
			}
			all[name] = value
		}
	}
	return all
}

// schema makes a config block's schema.
func schema(options []Option) *hclspec.Spec {
	object := make(map[string]*hclspec.Spec, len(options))
	for _, o := range options {
		object[o.Name] = o.spec()
	}
	return hclspec.NewObject(object)
}

func (o Option) spec() *hclspec.Spec {
	switch o.Kind {
	case Block:
		return hclspec.NewBlock(o.Name, false, schema(o.Options))
	case Blocks:
		return hclspec.NewBlockList(o.Name, schema(o.Options))
	case Named:
		return hclspec.NewBlockMap(o.Name, []string{"name"}, schema(o.Options))
	case Bool:
		// What is on unless it is switched off needs a default in the schema: false cannot be told from absent otherwise.
		if o.Default == "true" {
			return hclspec.NewDefault(hclspec.NewAttr(o.Name, string(Bool), false), hclspec.NewLiteral("true"))
		}
	case String, Number, Strings, Pairs:
	}
	return hclspec.NewAttr(o.Name, string(o.Kind), false)
}

// Table renders options as the rows of a table for people; a block's options follow it, with its name in front.
func Table(options []Option) string {
	var b strings.Builder
	b.WriteString("| option | kind | default | |\n|---|---|---|---|\n")
	writeRows(&b, "", options)
	return b.String()
}

func writeRows(b *strings.Builder, prefix string, options []Option) {
	for _, o := range options {
		preset := ""
		if o.Default != "" {
			preset = "`" + o.Default + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", prefix+o.Name, o.Kind.words(), preset, o.Doc)
		writeRows(b, prefix+o.Name+".", o.Options)
	}
}

func (k Kind) words() string {
	if k == Pairs {
		return "map of strings"
	}
	return string(k)
}
