package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drover/cmd/drover/apps"
	"drover/cmd/drover/controller"
	"drover/cmd/drover/controller/recipe"

	"github.com/spf13/cobra"
)

const pushHelp = `Push stages an app from its source and starts it, or starts an app from a Docker image. What is not said stays as it
was at the last push of the same name. The name is the directory's when none is given.

Sizes are like 256M or 1G.`

// pushFlags are push's flags as they are typed.
type pushFlags struct {
	push         controller.Push
	memory, disk string
	env          map[string]string
	checkType    string
	endpoint     string
	startTimeout time.Duration
}

func newPushCommand() *cobra.Command {
	var flags pushFlags
	where := &platformFlag{}
	cmd := &cobra.Command{
		Use:   "push [NAME]",
		Short: "stage and start an app, or start a Docker image",
		Long:  pushHelp,
		Example: "  drover push hello -p ./my-app -i 2 -m 256M\n" +
			"  drover push web -o REGISTRY/REPOSITORY:TAG --health-check-type http --endpoint /healthz",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			push, err := flags.wish(args)
			if err != nil {
				return err
			}
			session, err := where.open(cmd)
			if err != nil {
				return err
			}
			app, err := session.Push(cmd.Context(), push)
			if err != nil {
				return err
			}
			return showURLs(cmd.Context(), cmd.OutOrStdout(), session, app)
		},
	}
	set := cmd.Flags()
	set.StringVarP(&flags.push.Dir, "path", "p", ".", "directory of the app's source")
	set.StringVarP(&flags.push.Image, "docker-image", "o", "", "Docker image to run instead of source")
	set.Int32VarP(&flags.push.Instances, "instances", "i", 0, "number of instances (default 1)")
	set.StringVarP(&flags.memory, "memory", "m", "", "memory of each instance (default 256M)")
	set.StringVarP(&flags.disk, "disk", "k", "", "disk of each instance (default 1G)")
	set.StringVarP(&flags.push.Command, "command", "c", "", "start command (default: the buildpack's or the image's)")
	set.StringVarP(&flags.push.Buildpack, "buildpack", "b", "", "buildpack to use without detection")
	set.StringToStringVarP(&flags.env, "env", "e", nil, "environment variables as NAME=VALUE")
	set.StringVarP(&flags.checkType, "health-check-type", "u", "", "port, http or process (default port)")
	set.StringVar(&flags.endpoint, "endpoint", "/", "path that the http health check gets")
	set.DurationVarP(&flags.startTimeout, "app-start-timeout", "t", 0, "how long a start may take (default 1m)")
	where.add(cmd)
	return cmd
}

// wish turns flags into a push, and refuses what contradicts itself.
func (f pushFlags) wish(args []string) (controller.Push, error) {
	push := f.push
	var errs [3]error
	push.MemoryMB, errs[0] = megabytes("memory", f.memory)
	push.DiskMB, errs[1] = megabytes("disk", f.disk)
	push.Check, errs[2] = f.check()
	if err := errors.Join(errs[:]...); err != nil {
		return push, err
	}
	if len(f.env) > 0 {
		push.Env = f.env
	}
	if push.Image != "" {
		push.Dir = ""
		if push.Buildpack != "" {
			return push, errors.New("a Docker image is run as it is: --buildpack does not go with --docker-image")
		}
	}
	var err error
	if push.Dir != "" {
		if push.Dir, err = filepath.Abs(push.Dir); err != nil {
			return push, fmt.Errorf("path: %w", err)
		}
	}
	push.Name = filepath.Base(push.Dir)
	if len(args) > 0 {
		push.Name = args[0]
	} else if push.Image != "" {
		return push, errors.New("name the app: drover push NAME -o IMAGE")
	}
	return push, nil
}

func (f pushFlags) check() (recipe.HealthCheck, error) {
	check := recipe.HealthCheck{Type: f.checkType, Timeout: f.startTimeout}
	if f.startTimeout < 0 {
		return check, fmt.Errorf("app start timeout %s: want a duration such as 90s", f.startTimeout)
	}
	switch f.checkType {
	case "", recipe.CheckPort, recipe.CheckProcess:
	case recipe.CheckHTTP:
		check.Endpoint = f.endpoint
	default:
		return check, fmt.Errorf("health check type %q is none of port, http and process", f.checkType)
	}
	return check, nil
}

// megabytes reads sizes such as 256M and 1G; nothing is zero.
func megabytes(what, text string) (int32, error) {
	if text == "" {
		return 0, nil
	}
	digits := strings.TrimRight(strings.ToUpper(text), "B")
	factor := int64(1)
	switch {
	case strings.HasSuffix(digits, "G"):
		factor = 1024
	case strings.HasSuffix(digits, "M"):
	default:
		return 0, fmt.Errorf("%s %q: want a size such as 256M or 1G", what, text)
	}
	number, err := strconv.ParseInt(digits[:len(digits)-1], 10, 20)
	if err != nil || number <= 0 {
		return 0, fmt.Errorf("%s %q: want a size such as 256M or 1G", what, text)
	}
	return int32(number * factor), nil
}

// showURLs prints where an app can be called.
func showURLs(ctx context.Context, out io.Writer, session *apps.Session, app recipe.App) error {
	if app.Instances == 0 || app.Check.Type == recipe.CheckProcess {
		return nil
	}
	urls, err := session.AwaitURLs(ctx, app)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s runs; Consul knows it as %s:\n  %s\n", app.Name, apps.Service(app), strings.Join(urls, "\n  "))
	return err
}
