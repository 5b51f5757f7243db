package plugin

import (
	"slices"

	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"drover/driver/task"
)

// NodeOptions are those of the agent's plugin block.
func NodeOptions() []Option {
	return slices.Concat(
		nodeOptions(), imageNodeOptions(), processNodeOptions(), securityNodeOptions(), storageNodeOptions(), networkNodeOptions(), limitsNodeOptions(), diskNodeOptions(),
		platformNodeOptions(),
	)
}

// TaskOptions are those of a task's config block.
func TaskOptions() []Option {
	return slices.Concat(
		imageOptions(), processOptions(), securityOptions(), storageOptions(), networkOptions(), nameOptions(), limitsOptions(), diskOptions(), platformOptions(),
	)
}

func configSpec() *hclspec.Spec { return schema(NodeOptions()) }

func taskConfigSpec() *hclspec.Spec { return schema(TaskOptions()) }

// config is the agent's plugin block as the schema decodes it.
type config struct {
	nodeConfig
	imageNode
	processNode
	securityNode
	storageNode
	networkNode
	limitsNode
	diskNode
	platformNode
}

// taskConfig is a task's config block as the schema decodes it.
type taskConfig struct {
	imageTask
	processTask
	securityTask
	storageTask
	networkTask
	nameTask
	limitsTask
	diskTask
	platformTask
}

// node fills in the defaults and checks the rest.
func (c config) node() (task.Config, error) {
	n := task.Config{}
	for _, part := range []interface{ into(n *task.Config) error }{
		c.nodeConfig, c.imageNode, c.processNode, c.securityNode, c.storageNode, c.networkNode, c.limitsNode, c.diskNode, c.platformNode,
	} {
		if err := part.into(&n); err != nil {
			return n, err
		}
	}
	return n, n.Validate()
}

// wish says what the task asks for in the words of package task.
func (c taskConfig) wish(user string) (task.Wish, error) {
	w := task.Wish{User: user}
	for _, part := range []interface{ into(w *task.Wish) error }{
		c.imageTask, c.processTask, c.securityTask, c.storageTask, c.networkTask, c.nameTask, c.limitsTask, c.diskTask, c.platformTask,
	} {
		if err := part.into(&w); err != nil {
			return w, err
		}
	}
	return w, nil
}
