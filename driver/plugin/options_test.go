package plugin

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// An option that is decoded into nothing would be dropped without a word, and a field without an option can never be set.
func TestOptions_areTheFieldsOfTheStructs(t *testing.T) {
	for name, row := range map[string]struct {
		options []Option
		decoded any
	}{
		"plugin block": {NodeOptions(), config{}},
		"task config":  {TaskOptions(), taskConfig{}},
	} {
		t.Run(name, func(t *testing.T) { sameNames(t, name, row.options, reflect.TypeOf(row.decoded)) })
	}
}

func sameNames(t *testing.T, where string, options []Option, decoded reflect.Type) {
	t.Helper()
	fields := codecFields(decoded)
	for _, o := range options {
		if o.Doc == "" || strings.Contains(o.Doc, "|") {
			t.Errorf("%s: option %s needs a line for the table, without bars", where, o.Name)
		}
		field, found := fields[o.Name]
		if !found {
			t.Errorf("%s: option %s is decoded into no field of %s", where, o.Name, decoded)
			continue
		}
		delete(fields, o.Name)
		if slices.Contains([]Kind{Block, Blocks, Named}, o.Kind) {
			for field.Kind() != reflect.Struct {
				field = field.Elem()
			}
			sameNames(t, where+"."+o.Name, o.Options, field)
		}
	}
	for name := range fields {
		t.Errorf("%s: field %s of %s has no option", where, name, decoded)
	}
}

// codecFields maps the names that the decoder knows to their types, embedded structs included.
func codecFields(decoded reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(decoded) {
		if f.Anonymous {
			continue
		}
		fields[f.Tag.Get("codec")] = f.Type
	}
	return fields
}
