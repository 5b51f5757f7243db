package task

import (
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"

	"drover/driver"
)

func TestOwner(t *testing.T) {
	action := models.WrapAction(models.Serial(
		&models.DownloadAction{User: "root"}, models.Timeout(&models.RunAction{User: "vcap"}, 1), &models.RunAction{User: "root"}))
	diego := func(rootFS string, wish StorageWish) facts {
		return facts{info: &driver.RunInfo{}, def: definition{rootFS: rootFS, main: action}, req: Request{Wish: Wish{Storage: wish}}}
	}
	job := func(wish Wish, user string) facts {
		wish.User, wish.Storage.RootFSOwner = user, OwnerUser
		return facts{req: Request{Wish: wish}}
	}
	for name, row := range map[string]struct {
		facts facts
		node  string
		want  string
	}{
		"nobody asks":                         {diego("docker:///a/b", StorageWish{}), "", ""},
		"the operator asks for images":        {diego("docker:///a/b", StorageWish{}), OwnerUser, "vcap"},
		"the job knows better":                {diego("docker:///a/b", StorageWish{RootFSOwner: OwnerImage}), OwnerUser, ""},
		"stacks are made for their user":      {diego("preloaded:s", StorageWish{RootFSOwner: OwnerUser}), OwnerUser, ""},
		"an image as its user":                {job(Wish{Image: "a"}, "node"), "", "node"},
		"an image as root":                    {job(Wish{Image: "a"}, "root"), "", ""},
		"an image as no user":                 {job(Wish{Image: "a"}, ""), "", ""},
		"a job may ask for its stack":         {job(Wish{RootFS: "s"}, "vcap"), "", "vcap"},
		"a droplet runs as vcap":              {job(Wish{RootFS: "s", Droplet: "d"}, ""), "", "vcap"},
		"a droplet's user":                    {job(Wish{RootFS: "s", Droplet: "d"}, "app"), "", "app"},
		"the operator does not ask for those": {facts{req: Request{Wish: Wish{RootFS: "s", User: "vcap"}}}, OwnerUser, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := row.facts
			f.node.Storage.RootFSOwner, f.imageLayers = row.node, 3
			c := driver.Container{Process: driver.Process{User: f.req.Wish.User}}
			if f.info != nil || f.req.Wish.Droplet != "" {
				c.Work = &driver.Work{}
			}
			var want *driver.Owner
			if row.want != "" {
				want = &driver.Owner{User: row.want, Layers: 3}
			}
			if diff := cmp.Diff(want, f.owner(c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestValidateOwner(t *testing.T) {
	if err := (StorageWish{RootFSOwner: "me"}).validate(Config{}); err == nil {
		t.Error("took an owner that there is not")
	}
	if err := (StorageConfig{RootFSOwner: OwnerUser}).validate(); err != nil {
		t.Error(err)
	}
}
