package plugin

import (
	"errors"
	"fmt"
	"time"

	"drover/driver/image"
	"drover/driver/login"
	"drover/driver/task"
)

// imageNodeOptions: what an operator decides about images.
func imageNodeOptions() []Option {
	return []Option{
		{Name: "image_dir", Kind: String, Default: task.DefaultImageDir, Doc: "images and droplets, unpacked once per digest"},
		{Name: "insecure_registries", Kind: Strings, Default: "loopback only", Doc: "registries (host:port) that are spoken to in plain http"},
		{Name: "image_pull_timeout", Kind: String, Default: "15m", Doc: "how long getting one task's root file system may take, unless the task says otherwise"},
		{Name: "pull_activity_timeout", Kind: String, Default: "2m", Doc: "how long a transfer may bring no byte before it is begun again where it was, and given up when that does not help"},
		{Name: "auth", Kind: Block, Doc: "this node's own users of registries, for jobs that bring none; not for Cloud Foundry's apps", Options: []Option{
			{Name: "config", Kind: String, Doc: "a Docker configuration file (auths, credHelpers, credsStore), read anew for each pull"},
			{Name: "helper", Kind: String, Doc: "NAME of the program docker-credential-NAME, for registries that the file does not know"},
		}},
		{Name: "gc", Kind: Block, Doc: "removal of images and droplets that no task uses, the longest unused first", Options: []Option{
			{Name: "image", Kind: Bool, Default: "true", Doc: "whether anything is removed"},
			{Name: "image_delay", Kind: String, Default: "3m", Doc: "how long something unused stays in any case, unless a pull finds the disk full"},
			{Name: "high_watermark", Kind: Number, Default: "85", Doc: "percent of image_dir's file system in use above which removal begins"},
			{Name: "low_watermark", Kind: Number, Default: "75", Doc: "percent at which it ends"},
			{Name: "max_age", Kind: String, Doc: "how long something unused stays at most, such as `720h`; without it, for ever while there is room"},
		}},
		{Name: "prefetch", Kind: Strings, Doc: "images that are pulled in the background at the plugin's start, renewed every six hours, and never removed"},
	}
}

type imageNode struct {
	ImageDir            string   `codec:"image_dir"`
	InsecureRegistries  []string `codec:"insecure_registries"`
	ImagePullTimeout    string   `codec:"image_pull_timeout"`
	PullActivityTimeout string   `codec:"pull_activity_timeout"`
	Auth                authNode `codec:"auth"`
	GC                  *gcNode  `codec:"gc"`
	Prefetch            []string `codec:"prefetch"`
}

type authNode struct {
	Config string `codec:"config"`
	Helper string `codec:"helper"`
}

type gcNode struct {
	Image         bool   `codec:"image"`
	ImageDelay    string `codec:"image_delay"`
	HighWatermark int    `codec:"high_watermark"`
	LowWatermark  int    `codec:"low_watermark"`
	MaxAge        string `codec:"max_age"`
}

func (c imageNode) into(n *task.Config) error {
	n.ImageDir = or(c.ImageDir, task.DefaultImageDir)
	n.InsecureRegistries = c.InsecureRegistries
	n.Pull.Login = login.Sources{File: c.Auth.Config, Helper: c.Auth.Helper}
	n.Pull.Prefetch = c.Prefetch
	var pullErr, activityErr, gcErr error
	n.PullTimeout, pullErr = duration("image_pull_timeout", c.ImagePullTimeout, task.DefaultPullTimeout)
	n.Pull.Activity, activityErr = duration("pull_activity_timeout", c.PullActivityTimeout, image.DefaultActivity)
	n.Pull.Limits, gcErr = c.GC.limits()
	return errors.Join(pullErr, activityErr, gcErr)
}

// limits says when images are removed; a missing block is one with nothing in it.
func (c *gcNode) limits() (image.Limits, error) {
	if c == nil {
		c = &gcNode{Image: true}
	}
	if !c.Image {
		return image.Limits{}, nil
	}
	delay, delayErr := duration("gc.image_delay", c.ImageDelay, task.DefaultGCDelay)
	age, ageErr := duration("gc.max_age", c.MaxAge, 0)
	limits := image.Limits{Delay: delay, MaxAge: age, High: c.HighWatermark, Low: c.LowWatermark}
	if limits.High == 0 {
		limits.High = task.DefaultGCHigh
	}
	if limits.Low == 0 {
		limits.Low = min(task.DefaultGCLow, limits.High-1)
	}
	return limits, errors.Join(delayErr, ageErr)
}

// duration reads an option such as "15m".
func duration(option, text string, preset time.Duration) (time.Duration, error) {
	if text == "" {
		return preset, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a duration such as \"15m\"", option, text)
	}
	return d, nil
}

// imageOptions: where a task's root file system comes from.
func imageOptions() []Option {
	return []Option{
		{Name: "image", Kind: String, Doc: "reference by tag or digest; a name without a host is Docker Hub's. Or `docker-archive:PATH[:TAG]`, `oci-archive:PATH[:NAME]`, `oci:DIRECTORY[:NAME]`, with a path in the task's directory (such as `local/app.tar`) or below `allow_host_paths`"},
		{Name: "load", Kind: String, Doc: "what `docker save` has written, in the task's directory `local`; `image` then chooses one of its tags"},
		{Name: "platform", Kind: String, Default: "the node's", Doc: "such as `linux/arm64/v8`; another architecture than the node's needs an emulator on the node"},
		{Name: "force_pull", Kind: Bool, Doc: "fail when the registry cannot be asked what a tag means now; without it, the task then starts with what it meant before"},
		{Name: "image_pull_timeout", Kind: String, Default: "the plugin's", Doc: "how long getting the root file system may take; may be longer than the plugin's"},
		{Name: "auth", Kind: Block, Doc: "credentials for `image`", Options: []Option{
			{Name: "username", Kind: String, Doc: "user of the registry"},
			{Name: "password", Kind: String, Doc: "password or token; take it from a template or a variable, not from the job"},
			{Name: "server_address", Kind: String, Default: "the image's registry", Doc: "the registry that they are for"},
		}},
		{Name: "rootfs", Kind: String, Doc: "instead of `image`: a stack of the node, or an absolute path below `allow_host_paths`"},
		{Name: "auth_soft_fail", Kind: Bool, Doc: "when the credentials are refused or cannot be found, try without any"},
	}
}

type imageTask struct {
	Image            string     `codec:"image"`
	Load             string     `codec:"load"`
	Platform         string     `codec:"platform"`
	ForcePull        bool       `codec:"force_pull"`
	ImagePullTimeout string     `codec:"image_pull_timeout"`
	Auth             authConfig `codec:"auth"`
	AuthSoftFail     bool       `codec:"auth_soft_fail"`
	RootFS           string     `codec:"rootfs"`
}

type authConfig struct {
	Username      string `codec:"username"`
	Password      string `codec:"password"`
	ServerAddress string `codec:"server_address"`
}

func (c imageTask) into(w *task.Wish) error {
	w.Image, w.Auth, w.RootFS = c.Image, task.Auth(c.Auth), c.RootFS
	timeout, err := duration("image_pull_timeout", c.ImagePullTimeout, 0)
	w.Pull = task.PullWish{Platform: c.Platform, Force: c.ForcePull, AuthSoftFail: c.AuthSoftFail, Timeout: timeout, Load: c.Load}
	return err
}
