package bundle

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed apps
var apps embed.FS //nolint:gochecknoglobals // Embedding needs a variable; nothing writes to it.

// SampleNodeApp returns the files of an app for the nodejs buildpack, with a dependency for npm to install. GET / tells
// who and where the instance is, as JSON; /health answers 200; /exit?code=N ends it.
func SampleNodeApp() fs.FS { return sub(apps, "apps/node") }

// SampleStaticApp returns the files of an app for the static buildpack.
func SampleStaticApp() fs.FS { return sub(apps, "apps/static") }

// sub returns a directory that is known to be there.
func sub(from embed.FS, dir string) fs.FS {
	out, err := fs.Sub(from, dir)
	if err != nil {
		panic(fmt.Sprintf("bundle: %s is not a path: %v", dir, err))
	}
	return out
}
