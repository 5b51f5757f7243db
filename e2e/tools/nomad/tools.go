//go:build tools

// Package nomad pins the Nomad that Drover's tests and drover dev run against.
package nomad

import _ "github.com/hashicorp/nomad"
