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

// filter is a picture of the machine's packet filter: the chains of its tables, and which tables there are.
type filter struct {
	// Tables are lines of nft, such as "table ip nat".
	Tables []string `json:"tables"`
	// Chains are by program and table, such as "iptables nat".
	Chains map[string][]string `json:"chains"`
	// DropsForwarded says that packets are not forwarded by default.
	DropsForwarded bool `json:"drops_forwarded"`
}

// filterTables are those that CNI's plugins touch.
func filterTables() []string {
	return []string{"nat", "filter"}
}

// families maps nft's names of protocols to the programs that edit their tables.
func families() map[string]string {
	return map[string]string{"ip": "iptables", "ip6": "ip6tables"}
}

// readFilter takes a picture.
func readFilter(ctx context.Context) (filter, error) {
	picture := filter{Chains: map[string][]string{}}
	if hasNFT() {
		tables, err := output(ctx, nil, "nft", "list", "tables")
		if err != nil {
			return picture, err
		}
		picture.Tables = lines(tables)
	}
	for _, program := range families() {
		for _, table := range filterTables() {
			saved, err := output(ctx, nil, program+"-save", "-t", table)
			if err != nil {
				return picture, err
			}
			picture.add(program, table, lines(saved))
		}
	}
	return picture, nil
}

// add notes the chains of a table.
func (f *filter) add(program, table string, saved []string) {
	for _, line := range saved {
		name, isChain := strings.CutPrefix(line, ":")
		if !isChain {
			continue
		}
		chain, policy, _ := strings.Cut(name, " ")
		f.Chains[program+" "+table] = append(f.Chains[program+" "+table], chain)
		if program == "iptables" && table == "filter" && chain == "FORWARD" && strings.HasPrefix(policy, "DROP") {
			f.DropsForwarded = true
		}
	}
}

// hasNFT tells whether tables can be looked at whole; iptables alone has tables that are always there.
func hasNFT() bool {
	path, err := exec.LookPath("nft")
	return err == nil && path != ""
}

// restore removes the chains of CNI that are not in the picture, the rules that jump to them, and the tables that
// exist only because of them. Chains that others made in the meantime stay.
func (f filter) restore(ctx context.Context) error {
	var failures []error
	for family, program := range families() {
		for _, table := range filterTables() {
			failures = append(failures, f.restoreTable(ctx, program, table), f.dropTable(ctx, family, table))
		}
	}
	return errors.Join(failures...)
}

func (f filter) restoreTable(ctx context.Context, program, table string) error {
	saved, err := output(ctx, nil, program+"-save", "-t", table)
	if err != nil {
		return err
	}
	script := undo(table, lines(saved), f.Chains[program+" "+table])
	if script == "" {
		return nil
	}
	_, err = output(ctx, []byte(script), program+"-restore", "--noflush")
	return err
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

// dropTable removes a table that was not there and holds no rule any more; asking iptables alone makes such tables.
func (f filter) dropTable(ctx context.Context, family, name string) error {
	table := "table " + family + " " + name
	if !hasNFT() || slices.Contains(f.Tables, table) {
		return nil
	}
	now, err := output(ctx, nil, "nft", "list", "tables")
	if err != nil || !slices.Contains(lines(now), table) {
		return err
	}
	content, err := output(ctx, nil, "nft", "list", "table", family, name)
	if err != nil || hasRules(content) {
		return err
	}
	return command(ctx, "nft", "delete", "table", family, name)
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
