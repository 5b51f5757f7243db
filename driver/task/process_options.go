package task

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"drover/driver"
)

// DefaultLogPatience is how long a log may be full without a reader.
const DefaultLogPatience = 30 * time.Second

// ProcessConfig is an operator's part of: What a task may say of its process: init, tty, extra groups, labels, logs.
type ProcessConfig struct {
	// Logging holds for tasks that do not say.
	Logging LoggingWish
	// LogPatience is how long a full log may be without a reader before it is emptied; zero is for ever.
	LogPatience time.Duration
	// ExtraLabels are patterns of the names that Request.Names has, such as job_*.
	ExtraLabels []string
}

func (c ProcessConfig) validate() error {
	errs := []error{c.Logging.validate()}
	if c.LogPatience < 0 || c.LogPatience > 0 && c.LogPatience < time.Second {
		errs = append(errs, fmt.Errorf("log_patience: %s must be 0, for ever, or at least a second", c.LogPatience))
	}
	for _, pattern := range c.ExtraLabels {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("extra_labels: %q is no pattern such as job_*", pattern))
		}
	}
	return errors.Join(errs...)
}

// ProcessWish is a job's part of the same.
type ProcessWish struct {
	Init        bool
	TTY         bool
	Interactive bool
	Labels      map[string]string
	Logging     LoggingWish
}

// LoggingWish says where a task's output goes: Type is nomad, none, or empty for the node's.
type LoggingWish struct {
	Type   string
	Config map[string]string
}

// Bounds of labels, which are kept with the task's handle in Nomad's state.
const (
	maxLabels     = 64
	maxLabelBytes = 16 << 10
)

func (w ProcessWish) validate(Config) error {
	size := 0
	for name, value := range w.Labels {
		if name == "" {
			return errors.New("labels: a label has a name")
		}
		size += len(name) + len(value)
	}
	if len(w.Labels) > maxLabels || size > maxLabelBytes {
		return fmt.Errorf("labels: at most %d, of %d bytes together", maxLabels, maxLabelBytes)
	}
	return w.Logging.validate()
}

const (
	loggingNomad = "nomad"
	loggingNone  = "none"
	// optionRateLimit is the one option of logging.config.
	optionRateLimit = "rate_limit"
)

func (w LoggingWish) validate() error {
	if w.Type != "" && w.Type != loggingNomad && w.Type != loggingNone {
		return fmt.Errorf("logging: type %q is not known here; nomad and none are: ship logs from Nomad's files", w.Type)
	}
	for _, name := range sortedKeys(w.Config) {
		if name != optionRateLimit {
			return fmt.Errorf("logging.config: %q is not known here; rate_limit is, and the job's logs block has max_files and max_file_size", name)
		}
	}
	_, err := w.limit()
	return err
}

// limit is the bytes per second, nil for no limit.
func (w LoggingWish) limit() (*int64, error) {
	text := w.Config[optionRateLimit]
	if text == "" || text == "-1" || text == "unlimited" {
		return nil, nil //nolint:nilnil // no limit is no error
	}
	n, err := parseBytes(strings.TrimSuffix(text, "/s"))
	if err != nil {
		return nil, fmt.Errorf("logging.config.rate_limit: %w, per second; -1 is unlimited", err)
	}
	return &n, nil
}

// over is what a job says, and the node's where it says nothing.
func (w LoggingWish) over(node LoggingWish) LoggingWish {
	out := LoggingWish{Type: orElse(w.Type, node.Type), Config: node.Config}
	if w.Config[optionRateLimit] != "" {
		out.Config = w.Config
	}
	return out
}

// applyProcess puts into the container how its process 1 runs.
func (f facts) applyProcess(c *driver.Container) error {
	w := f.req.Wish.Process
	if c.Work != nil && (w.TTY || w.Interactive) {
		return errors.New("tty, interactive: not allowed with droplet and run_info, which run several processes")
	}
	c.Init, c.TTY, c.Interactive = w.Init && c.Work == nil, w.TTY, w.Interactive
	logging := w.Logging.over(f.node.Process.Logging)
	limit, err := logging.limit()
	if err != nil {
		return err
	}
	if f.def.logLimit != nil {
		limit = f.def.logLimit
	}
	if limit != nil && *limit < 0 {
		limit = nil
	}
	c.Logging = driver.Logging{Limit: limit, Patience: f.node.Process.LogPatience}
	if logging.Type == loggingNone {
		c.Stdout, c.Stderr, c.Logging = os.DevNull, os.DevNull, driver.Logging{}
	}
	return nil
}

// labelPrefix is that of the labels which Nomad's docker driver adds.
const labelPrefix = "com.hashicorp.nomad."

// labels are the job's, and over them the allocation's and those that the operator adds.
func (f facts) labels() map[string]string {
	all := map[string]string{}
	for name, value := range f.req.Wish.Process.Labels {
		all[name] = value
	}
	for name, value := range f.req.Names {
		if slices.ContainsFunc(f.node.Process.ExtraLabels, func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok }) {
			all[labelPrefix+name] = value
		}
	}
	all[labelPrefix+"alloc_id"] = f.req.AllocID
	return all
}
