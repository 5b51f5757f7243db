package dev

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// filter is a picture of the machine's IPv4 packet filter: the chains of its tables, and which tables there are.
type filter struct {
	tables         []string
	chains         map[string][]string
	dropsForwarded bool
}

// filterTables are those that CNI's plugins touch.
func filterTables() []string {
	return []string{"nat", "filter"}
}

// readFilter takes a picture.
func readFilter(ctx context.Context) (filter, error) {
	picture := filter{chains: map[string][]string{}}
	if _, err := exec.LookPath("nft"); err == nil {
		tables, err := output(ctx, nil, "nft", "list", "tables")
		if err != nil {
			return picture, err
		}
		picture.tables = lines(tables)
	}
	for _, table := range filterTables() {
		saved, err := output(ctx, nil, "iptables-save", "-t", table)
		if err != nil {
			return picture, err
		}
		for _, line := range lines(saved) {
			if name, ok := strings.CutPrefix(line, ":"); ok {
				chain, policy, _ := strings.Cut(name, " ")
				picture.chains[table] = append(picture.chains[table], chain)
				picture.dropsForwarded = picture.dropsForwarded || (table == "filter" && chain == "FORWARD" && strings.HasPrefix(policy, "DROP"))
			}
		}
	}
	return picture, nil
}

// restore removes the chains of CNI that are not in the picture, the rules that jump to them, and the tables that
// exist only because of them. Chains that others made in the meantime stay.
func (f filter) restore(ctx context.Context) error {
	var failures []error
	for _, table := range filterTables() {
		saved, err := output(ctx, nil, "iptables-save", "-t", table)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if script := undo(table, lines(saved), f.chains[table]); script != "" {
			_, err := output(ctx, []byte(script), "iptables-restore", "--noflush")
			failures = append(failures, err)
		}
	}
	return errors.Join(append(failures, f.dropTables(ctx))...)
}

// undo is an iptables-restore script that takes CNI's chains, other than the known ones, out of a table.
func undo(table string, saved, known []string) string {
	var ours []string
	for _, line := range saved {
		name, isChain := strings.CutPrefix(line, ":")
		chain, _, _ := strings.Cut(name, " ")
		if isChain && strings.HasPrefix(chain, "CNI-") && !slices.Contains(known, chain) {
			ours = append(ours, chain)
		}
	}
	if len(ours) == 0 {
		return ""
	}
	var script strings.Builder
	fmt.Fprintf(&script, "*%s\n", table)
	for _, line := range saved {
		rule, isRule := strings.CutPrefix(line, "-A ")
		words := strings.Fields(rule)
		if !isRule || slices.Contains(ours, words[0]) {
			continue // rules of our own chains go with them
		}
		if at := slices.Index(words, "-j"); at >= 0 && at+1 < len(words) && slices.Contains(ours, words[at+1]) {
			fmt.Fprintf(&script, "-D %s\n", rule)
		}
	}
	for _, action := range []string{"-F", "-X"} {
		for _, chain := range ours {
			fmt.Fprintf(&script, "%s %s\n", action, chain)
		}
	}
	script.WriteString("COMMIT\n")
	return script.String()
}

// dropTables removes tables that were not there and hold no rule any more; asking iptables alone makes such tables.
func (f filter) dropTables(ctx context.Context) error {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil
	}
	var failures []error
	for _, name := range filterTables() {
		table := "ip " + name
		if slices.Contains(f.tables, "table "+table) {
			continue
		}
		content, err := output(ctx, nil, "nft", "list", "table", "ip", name)
		if err != nil {
			continue // it is not there
		}
		if !hasRules(content) {
			failures = append(failures, command(ctx, "nft", "delete", "table", "ip", name))
		}
	}
	return errors.Join(failures...)
}

// hasRules tells whether a listed table holds more than empty base chains that accept.
func hasRules(content []byte) bool {
	for _, line := range lines(content) {
		line = strings.TrimSpace(line)
		empty := line == "" || line == "}" || strings.HasPrefix(line, "table ") || strings.HasPrefix(line, "chain ") || strings.HasPrefix(line, "#")
		base := strings.HasPrefix(line, "type ") && strings.HasSuffix(line, "policy accept;")
		if !empty && !base {
			return true
		}
	}
	return false
}

func lines(text []byte) []string {
	var list []string
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		list = append(list, scan.Text())
	}
	return list
}
