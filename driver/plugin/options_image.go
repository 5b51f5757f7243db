package plugin

import (
	"fmt"
	"time"

	"drover/driver/task"
)

// imageNodeOptions: what an operator decides about images.
func imageNodeOptions() []Option {
	return []Option{
		{Name: "image_dir", Kind: String, Default: task.DefaultImageDir, Doc: "images and droplets, unpacked once per digest"},
		{Name: "insecure_registries", Kind: Strings, Default: "loopback only", Doc: "registries (host:port) that are spoken to in plain http"},
		{Name: "image_pull_timeout", Kind: String, Default: "15m", Doc: "how long getting one task's root file system may take"},
	}
}

type imageNode struct {
	ImageDir           string   `codec:"image_dir"`
	InsecureRegistries []string `codec:"insecure_registries"`
	ImagePullTimeout   string   `codec:"image_pull_timeout"`
}

func (c imageNode) into(n *task.Config) (err error) {
	n.ImageDir = or(c.ImageDir, task.DefaultImageDir)
	n.InsecureRegistries = c.InsecureRegistries
	n.PullTimeout, err = duration("image_pull_timeout", c.ImagePullTimeout, task.DefaultPullTimeout)
	return err
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
		{Name: "image", Kind: String, Doc: "reference by tag or digest; a name without a host is Docker Hub's"},
		{Name: "auth", Kind: Block, Doc: "credentials for `image`", Options: []Option{
			{Name: "username", Kind: String, Doc: "user of the registry"},
			{Name: "password", Kind: String, Doc: "password or token; take it from a template or a variable, not from the job"},
			{Name: "server_address", Kind: String, Default: "the image's registry", Doc: "the registry that they are for"},
		}},
		{Name: "rootfs", Kind: String, Doc: "instead of `image`: a stack of the node, or an absolute path below `allow_host_paths`"},
	}
}

type imageTask struct {
	Image  string     `codec:"image"`
	Auth   authConfig `codec:"auth"`
	RootFS string     `codec:"rootfs"`
}

type authConfig struct {
	Username      string `codec:"username"`
	Password      string `codec:"password"`
	ServerAddress string `codec:"server_address"`
}

func (c imageTask) into(w *task.Wish) error {
	w.Image, w.Auth, w.RootFS = c.Image, task.Auth(c.Auth), c.RootFS
	return nil
}
