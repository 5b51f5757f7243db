package nomad

import (
	"context"
	"errors"
	"slices"
	"time"
)

// attempts is how often a write is tried against other writers.
const attempts = 8

// UpsertDomain keeps the contract of bridge.Domains.
func (r *Runtime) UpsertDomain(ctx context.Context, domain string, ttl time.Duration) error {
	ctx, cancel, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	record := &domainRecord{Domain: domain}
	if ttl > 0 {
		record.Until = r.config.Now().Add(ttl).UnixNano()
	}
	path := domainPath(domain)
	for range attempts {
		known, _ := r.records.get(path)
		if _, err = r.writeRecord(ctx, path, known.modifyIndex, record); !errors.Is(err, errConflict) {
			return err
		}
		if _, ok, readErr := r.readRecord(ctx, path); readErr != nil {
			return readErr
		} else if !ok {
			r.records.drop(path, 0)
		}
	}
	return err
}

// FreshDomains keeps the contract of bridge.Domains.
func (r *Runtime) FreshDomains(ctx context.Context) ([]string, error) {
	_, cancel, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	now := r.config.Now().UnixNano()
	var fresh []string
	for _, e := range r.records.list(domainsPath) {
		record, is := e.record.(*domainRecord)
		if is && (record.Until == 0 || record.Until > now) {
			fresh = append(fresh, record.Domain)
		}
	}
	slices.Sort(fresh)
	return fresh, nil
}
