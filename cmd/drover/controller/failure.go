package controller

import (
	"slices"
	"strings"
)

// stagingError names a Task's failure reason as Cloud Controller does in its answers to people, and in its order: by
// the lifecycle's exit status at the very end of the text, then by Diego's words for a place that was not found. Other
// reasons are StagingError.
func stagingError(reason string) string {
	for _, known := range []struct {
		is   func(text, part string) bool
		part string
		name string
	}{
		{strings.HasSuffix, "222", "NoAppDetectedError"},
		{strings.HasSuffix, "223", "BuildpackCompileFailed"},
		{strings.HasSuffix, "224", "BuildpackReleaseFailed"},
		{strings.HasPrefix, "insufficient resources", "InsufficientResources"},
		{strings.HasPrefix, "found no compatible cell", "NoCompatibleCell"},
	} {
		if known.is(reason, known.part) {
			return known.name
		}
	}
	return "StagingError"
}

// cure is what a person can do about a failed staging; empty when the log says it all.
func cure(name string, buildpacks []string) string {
	slices.Sort(buildpacks)
	switch name {
	case "NoAppDetectedError":
		return "no buildpack knows what this is; there are " + strings.Join(buildpacks, ", ") + ", and --buildpack takes one without asking it"
	case "InsufficientResources":
		return "ask for less memory or disk, or delete an app"
	case "NoCompatibleCell":
		return "no node has the stack or the placement tag that was asked for"
	default:
		return ""
	}
}
