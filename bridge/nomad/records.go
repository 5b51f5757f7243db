package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"
)

// entry is one record of the index. The record is shared and never changed; copy it to write another.
type entry struct {
	path        string
	createIndex uint64
	modifyIndex uint64
	record      any
}

// records is the index of our variables.
type records struct {
	health health

	mu      sync.Mutex
	entries map[string]entry
	// graves holds what this process deleted until a list shows it gone.
	graves map[string]uint64
}

func newRecords() *records {
	return &records{
		health:  health{ready: make(chan struct{})},
		entries: map[string]entry{},
		graves:  map[string]uint64{},
	}
}

func (r *records) get(path string) (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.entries[path]
	return found, ok
}

// list returns the entries below a prefix in the order of their paths.
func (r *records) list(prefix string) []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var result []entry
	for path, found := range r.entries {
		if strings.HasPrefix(path, prefix) {
			result = append(result, found)
		}
	}
	slices.SortFunc(result, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	return result
}

// put takes over an entry unless a newer one is known.
func (r *records) put(e entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[e.path].modifyIndex < e.modifyIndex && r.graves[e.path] < e.modifyIndex {
		r.entries[e.path] = e
	}
}

// drop forgets what was deleted at index.
func (r *records) drop(path string, index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, path)
	r.graves[path] = max(index, r.graves[path])
}

// reset forgets everything.
func (r *records) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.entries)
	clear(r.graves)
}

// compare takes a complete list as of index, drops what is gone, and returns what must be read.
func (r *records) compare(list []*api.VariableMetadata, index uint64) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var stale []string
	listed := make(map[string]struct{}, len(list))
	for _, meta := range list {
		listed[meta.Path] = struct{}{}
		if r.entries[meta.Path].modifyIndex < meta.ModifyIndex && r.graves[meta.Path] < meta.ModifyIndex {
			stale = append(stale, meta.Path)
		}
	}
	maps.DeleteFunc(r.entries, func(path string, e entry) bool {
		_, still := listed[path]
		return !still && e.modifyIndex <= index
	})
	maps.DeleteFunc(r.graves, func(_ string, at uint64) bool { return at <= index })
	return stale
}

// readers is how many variables are read at a time.
const readers = 8

// listRecords brings the index up to date with one list.
func (r *Runtime) listRecords(ctx context.Context, index uint64) (seen, error) {
	query := r.query(ctx)
	query.WaitIndex, query.WaitTime = index, blockFor
	list, meta, err := r.client.Variables().PrefixList(root, query)
	if err != nil {
		return seen{}, fmt.Errorf("list variables: %w", err)
	}
	if meta.LastIndex < index {
		r.records.reset()
		return seen{index: meta.LastIndex}, nil
	}
	stale := r.records.compare(list, meta.LastIndex)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, path := range stale {
		group.Go(func() error {
			_, _, err := r.readRecord(groupCtx, path)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return seen{}, err
	}
	if len(stale) > 0 {
		r.hints.send()
	}
	return seen{index: meta.LastIndex, size: len(list)}, nil
}

// readRecord reads one record past the index; ok is false when there is none. A record that cannot be decoded is
// logged and left out: one bad variable must not blind the bridge.
func (r *Runtime) readRecord(ctx context.Context, path string) (found entry, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.RequestTimeout)
	defer cancel()
	variable, _, err := r.client.Variables().Peek(path, r.query(ctx))
	if err != nil {
		return entry{}, false, fmt.Errorf("read variable %s: %w", path, err)
	}
	if variable == nil {
		return entry{}, false, nil
	}
	record, err := decodeRecord(path, variable.Items)
	if err != nil {
		r.log.Error("a variable is not what it should be", "path", path, "error", err)
		return entry{}, false, nil
	}
	found = entry{path: path, createIndex: variable.CreateIndex, modifyIndex: variable.ModifyIndex, record: record}
	r.records.put(found)
	return found, true, nil
}

// errConflict is returned when a record is not what the writer believed.
var errConflict = errors.New("the record has been changed by somebody else")

// writeRecord writes a record if its variable was last changed at cas; 0 means that there is none yet.
func (r *Runtime) writeRecord(ctx context.Context, path string, cas uint64, record any) (entry, error) {
	items, err := encodeRecord(record)
	if err != nil {
		return entry{}, err
	}
	variable := &api.Variable{Path: path, Namespace: r.options.Namespace, Items: items, ModifyIndex: cas}
	var written *api.Variable
	if cas == 0 {
		written, _, err = r.client.Variables().CheckedCreate(variable, r.write(ctx))
	} else {
		written, _, err = r.client.Variables().CheckedUpdate(variable, r.write(ctx))
	}
	var conflict api.ErrCASConflict
	if errors.As(err, &conflict) {
		return entry{}, fmt.Errorf("write %s: %w", path, errConflict)
	}
	if err != nil {
		return entry{}, fmt.Errorf("write variable %s: %w", path, err)
	}
	result := entry{path: path, createIndex: written.CreateIndex, modifyIndex: written.ModifyIndex, record: record}
	r.records.put(result)
	return result, nil
}

// deleteVariable deletes a record or run info; a missing one is fine.
func (r *Runtime) deleteVariable(ctx context.Context, path string) error {
	meta, err := r.client.Variables().Delete(path, r.write(ctx))
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete variable %s: %w", path, err)
	}
	if strings.HasPrefix(path, root) {
		var index uint64
		if found, ok := r.records.get(path); ok {
			index = found.modifyIndex
		}
		if meta != nil {
			index = max(index, meta.LastIndex)
		}
		r.records.drop(path, index)
	}
	return nil
}

func isNotFound(err error) bool {
	var unexpected api.UnexpectedResponseError
	return errors.As(err, &unexpected) && unexpected.StatusCode() == 404
}
