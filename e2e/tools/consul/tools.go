//go:build tools

// Package consul pins the Consul that Drover's tests and drover dev run against.
package consul

import _ "github.com/hashicorp/consul"
