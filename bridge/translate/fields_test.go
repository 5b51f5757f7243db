package translate

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
)

// fate is what becomes of a field.
type fate string

const (
	// inJob: a change changes the job.
	inJob fate = "job"
	// byDriver: a change changes the run info, and the driver acts on it.
	byDriver fate = "driver"
	// stored: kept and given back; a change restarts nothing.
	stored fate = "stored"
	// refused: a request with it is an InvalidRequest that names it.
	refused fate = "refused"
	// listed: accepted and carried, but not acted upon, for the reason given.
	listed fate = "listed"
)

type fieldRow struct {
	field string
	fate  fate
	note  string
}

// fieldRows holds every field of a DesiredLRP and a TaskDefinition, and of all that they are made of. What a refused
// or listed field is made of goes with it.
var fieldRows = []fieldRow{
	{"DesiredLRP.ProcessGuid", inJob, "name of the job and of its services; at most 100 letters, digits, dashes and underscores"},
	{"DesiredLRP.Domain", inJob, "meta"},
	{"DesiredLRP.RootFs", inJob, "preloaded:<stack> and docker:, without credentials or query; constraint on the stack"},
	{"DesiredLRP.Instances", inJob, "count of the group, and stored"},
	{"DesiredLRP.EnvironmentVariables", byDriver, ""},
	{"DesiredLRP.Setup", byDriver, ""},
	{"DesiredLRP.Action", byDriver, ""},
	{"DesiredLRP.StartTimeoutMs", byDriver, ""},
	{"DesiredLRP.DeprecatedStartTimeoutS", byDriver, "deprecated: counts when start_timeout_ms is 0"},
	{"DesiredLRP.Monitor", byDriver, ""},
	{"DesiredLRP.DiskMb", inJob, "for placement; in the run info it also limits what the container writes, with its droplet and image but not its stack"},
	{"DesiredLRP.MemoryMb", inJob, "must be positive"},
	{"DesiredLRP.CpuWeight", inJob, "Nomad MHz = 1024·weight/100, which are the container's cpu.shares"},
	{"DesiredLRP.Privileged", refused, "there are no privileged containers"},
	{"DesiredLRP.Ports", inJob, "one port and one service each"},
	{"DesiredLRP.Routes", inJob, "tags of the services, and stored byte by byte"},
	{"DesiredLRP.LogSource", byDriver, "begins failure texts, when the action has none; Nomad's logs know no source"},
	{"DesiredLRP.LogGuid", inJob, "meta of the services"},
	{"DesiredLRP.MetricsGuid", listed, "deprecated: metric_tags.source_id counts"},
	{"DesiredLRP.Annotation", stored, ""},
	{"DesiredLRP.EgressRules", byDriver, "all that a container in a network of its own may reach; none at all close it"},
	{"DesiredLRP.ModificationTag", inJob, "made by the bridge; a given one is ignored"},
	{"DesiredLRP.CachedDependencies", byDriver, ""},
	{"DesiredLRP.LegacyDownloadUser", byDriver, ""},
	{"DesiredLRP.TrustedSystemCertificatesPath", byDriver, ""},
	{"DesiredLRP.VolumeMounts", refused, "there is no volume driver of Diego on Nomad's nodes"},
	{"DesiredLRP.Network", listed, "properties are carried to the driver; container networking policy is not supported yet"},
	{"DesiredLRP.PlacementTags", inJob, "constraint on the client's meta drover_placement_tags"},
	{"DesiredLRP.MaxPids", byDriver, ""},
	{"DesiredLRP.CertificateProperties", listed, "instance identity certificates are not made yet"},
	{"DesiredLRP.ImageUsername", byDriver, ""},
	{"DesiredLRP.ImagePassword", byDriver, ""},
	{"DesiredLRP.CheckDefinition", inJob, "checks of the services, and of the driver"},
	{"DesiredLRP.ImageLayers", byDriver, ""},
	{"DesiredLRP.MetricTags", stored, "given to each instance; metrics are not emitted yet"},
	{"DesiredLRP.Sidecars", refused, "use a codependent action, as Cloud Controller does"},
	{"DesiredLRP.LogRateLimit", byDriver, "bytes per second of all processes of an instance; whole lines are dropped, and that is said"},
	{"DesiredLRP.VolumeMountedFiles", refused, "mounted files are not supported yet"},
	{"DesiredLRP.UpdateStrategy", listed, "both strategies are a Nomad drain: the old instance stops, then the new one starts"},

	{"TaskDefinition.RootFs", inJob, "preloaded:<stack> and docker:, without credentials or query; constraint on the stack"},
	{"TaskDefinition.EnvironmentVariables", byDriver, ""},
	{"TaskDefinition.Action", byDriver, ""},
	{"TaskDefinition.DiskMb", inJob, "for placement; in the run info it also limits what the container writes, with its droplet and image but not its stack"},
	{"TaskDefinition.MemoryMb", inJob, "must be positive"},
	{"TaskDefinition.CpuWeight", inJob, "Nomad MHz = 1024·weight/100, which are the container's cpu.shares"},
	{"TaskDefinition.Privileged", refused, "there are no privileged containers"},
	{"TaskDefinition.LogSource", byDriver, "begins failure texts, when the action has none; Nomad's logs know no source"},
	{"TaskDefinition.LogGuid", listed, "logs are read by allocation"},
	{"TaskDefinition.MetricsGuid", listed, "deprecated: metric_tags.source_id counts"},
	{"TaskDefinition.ResultFile", byDriver, ""},
	{"TaskDefinition.CompletionCallbackUrl", stored, "called when the Task has ended"},
	{"TaskDefinition.Annotation", stored, ""},
	{"TaskDefinition.EgressRules", byDriver, "all that a container in a network of its own may reach; none at all close it"},
	{"TaskDefinition.CachedDependencies", byDriver, ""},
	{"TaskDefinition.LegacyDownloadUser", byDriver, ""},
	{"TaskDefinition.TrustedSystemCertificatesPath", byDriver, ""},
	{"TaskDefinition.VolumeMounts", refused, "there is no volume driver of Diego on Nomad's nodes"},
	{"TaskDefinition.Network", listed, "properties are carried to the driver; container networking policy is not supported yet"},
	{"TaskDefinition.PlacementTags", inJob, "constraint on the client's meta drover_placement_tags"},
	{"TaskDefinition.MaxPids", byDriver, ""},
	{"TaskDefinition.CertificateProperties", listed, "instance identity certificates are not made yet"},
	{"TaskDefinition.ImageUsername", byDriver, ""},
	{"TaskDefinition.ImagePassword", byDriver, ""},
	{"TaskDefinition.ImageLayers", byDriver, ""},
	{"TaskDefinition.LogRateLimit", byDriver, "bytes per second of all processes of an instance; whole lines are dropped, and that is said"},
	{"TaskDefinition.MetricTags", stored, "metrics are not emitted yet"},
	{"TaskDefinition.VolumeMountedFiles", refused, "mounted files are not supported yet"},

	{"Action.DownloadAction", byDriver, ""},
	{"Action.UploadAction", byDriver, ""},
	{"Action.RunAction", byDriver, ""},
	{"Action.TimeoutAction", byDriver, ""},
	{"Action.EmitProgressAction", byDriver, ""},
	{"Action.TryAction", byDriver, ""},
	{"Action.ParallelAction", byDriver, ""},
	{"Action.SerialAction", byDriver, ""},
	{"Action.CodependentAction", byDriver, ""},
	{"DownloadAction.Artifact", byDriver, ""},
	{"DownloadAction.From", byDriver, ""},
	{"DownloadAction.To", byDriver, ""},
	{"DownloadAction.CacheKey", byDriver, ""},
	{"DownloadAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"DownloadAction.User", byDriver, ""},
	{"DownloadAction.ChecksumAlgorithm", byDriver, ""},
	{"DownloadAction.ChecksumValue", byDriver, ""},
	{"UploadAction.Artifact", byDriver, ""},
	{"UploadAction.From", byDriver, ""},
	{"UploadAction.To", byDriver, ""},
	{"UploadAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"UploadAction.User", byDriver, ""},
	{"RunAction.Path", byDriver, ""},
	{"RunAction.Args", byDriver, ""},
	{"RunAction.Dir", byDriver, ""},
	{"RunAction.Env", byDriver, ""},
	{"RunAction.ResourceLimits", byDriver, ""},
	{"RunAction.User", byDriver, ""},
	{"RunAction.LogSource", byDriver, ""},
	{"RunAction.SuppressLogOutput", byDriver, ""},
	{"RunAction.VolumeMountedFiles", refused, "mounted files are not supported yet"},
	{"LogRateLimit.BytesPerSecond", byDriver, ""},
	{"ResourceLimits.OptionalNofile", byDriver, ""},
	{"ResourceLimits.OptionalNproc", byDriver, ""},
	{"TimeoutAction.Action", byDriver, ""},
	{"TimeoutAction.DeprecatedTimeoutNs", byDriver, "deprecated: counts when timeout_ms is 0"},
	{"TimeoutAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"TimeoutAction.TimeoutMs", byDriver, ""},
	{"EmitProgressAction.Action", byDriver, ""},
	{"EmitProgressAction.StartMessage", byDriver, ""},
	{"EmitProgressAction.SuccessMessage", byDriver, ""},
	{"EmitProgressAction.FailureMessagePrefix", byDriver, ""},
	{"EmitProgressAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"TryAction.Action", byDriver, ""},
	{"TryAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"ParallelAction.Actions", byDriver, ""},
	{"ParallelAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"SerialAction.Actions", byDriver, ""},
	{"SerialAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"CodependentAction.Actions", byDriver, ""},
	{"CodependentAction.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"EnvironmentVariable.Name", byDriver, ""},
	{"EnvironmentVariable.Value", byDriver, ""},
	{"CachedDependency.Name", byDriver, ""},
	{"CachedDependency.From", byDriver, ""},
	{"CachedDependency.To", byDriver, ""},
	{"CachedDependency.CacheKey", byDriver, ""},
	{"CachedDependency.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"CachedDependency.ChecksumAlgorithm", byDriver, ""},
	{"CachedDependency.ChecksumValue", byDriver, ""},
	{"ImageLayer.Name", byDriver, ""},
	{"ImageLayer.Url", byDriver, ""},
	{"ImageLayer.DestinationPath", byDriver, ""},
	{"ImageLayer.LayerType", byDriver, ""},
	{"ImageLayer.MediaType", byDriver, ""},
	{"ImageLayer.DigestAlgorithm", byDriver, "sha256 is verified, sha512 is not yet"},
	{"ImageLayer.DigestValue", byDriver, ""},
	{"CheckDefinition.Checks", inJob, ""},
	{"CheckDefinition.LogSource", listed, "names a source of log lines; Nomad's logs know none"},
	{"CheckDefinition.ReadinessChecks", inJob, "checks of the services; an instance is routable as soon as it is healthy"},
	{"Check.TcpCheck", inJob, ""},
	{"Check.HttpCheck", inJob, ""},
	{"TCPCheck.Port", inJob, ""},
	{"TCPCheck.ConnectTimeoutMs", inJob, "at least one second in Consul; one by default"},
	{"TCPCheck.IntervalMs", inJob, "at least one second in Consul; two by default"},
	{"HTTPCheck.Port", inJob, ""},
	{"HTTPCheck.RequestTimeoutMs", inJob, "at least one second in Consul; one by default"},
	{"HTTPCheck.Path", inJob, "appears in the job: no place for secrets"},
	{"HTTPCheck.IntervalMs", inJob, "at least one second in Consul; two by default"},
	{"SecurityGroupRule.Protocol", byDriver, ""},
	{"SecurityGroupRule.Destinations", byDriver, ""},
	{"SecurityGroupRule.Ports", byDriver, ""},
	{"SecurityGroupRule.PortRange", byDriver, ""},
	{"SecurityGroupRule.IcmpInfo", byDriver, ""},
	{"SecurityGroupRule.Log", byDriver, "a line in the node's kernel log for each connection"},
	{"SecurityGroupRule.Annotations", listed, "name the security group; nobody asks for them"},
	{"PortRange.Start", byDriver, ""},
	{"PortRange.End", byDriver, ""},
	{"ICMPInfo.Type", byDriver, "-1 is any"},
	{"ICMPInfo.Code", byDriver, "-1 is any"},
	{"ModificationTag.Epoch", inJob, "meta"},
	{"ModificationTag.Index", stored, "made by the bridge"},
	{"MetricTagValue.Static", stored, ""},
	{"MetricTagValue.Dynamic", stored, ""},
}

func fateOf(field string) (fieldRow, bool) {
	for _, row := range fieldRows {
		if row.field == field {
			return row, true
		}
	}
	return fieldRow{}, false
}

// outcome is what a request comes to.
type outcome struct {
	job, definition string
	err             error
}

func lrpOutcome(t *testing.T, lrp *models.DesiredLRP) outcome {
	t.Helper()
	work, err := LRP(lrp, Options{})
	return outcomeOf(t, work, err)
}

func taskOutcome(t *testing.T, task *models.TaskDefinition) outcome {
	t.Helper()
	work, err := Task("guid", "domain", "epoch", task, Options{})
	return outcomeOf(t, work, err)
}

func outcomeOf(t *testing.T, work Work, err error) outcome {
	t.Helper()
	if err != nil {
		return outcome{err: err}
	}
	return outcome{
		job:        string(encode(t, prune(roundTrip(t, work.Job)))),
		definition: readSecrets(t, work.Secrets).text,
	}
}

// TestFields_everyOneMatters changes each field of a full request and looks whether what the table says of it is true.
func TestFields_everyOneMatters(t *testing.T) {
	reached := map[string]bool{}
	everyField(t, reached, func() any { return fullLRP() }, func(t *testing.T, value any) outcome {
		t.Helper()
		lrp, _ := value.(*models.DesiredLRP)
		return lrpOutcome(t, lrp)
	})
	everyField(t, reached, func() any { return fullTask() }, func(t *testing.T, value any) outcome {
		t.Helper()
		task, _ := value.(*models.TaskDefinition)
		return taskOutcome(t, task)
	})
	for _, row := range fieldRows {
		if !reached[row.field] {
			t.Errorf("%s is in the table, but no request has such a field", row.field)
		}
	}
}

func everyField(t *testing.T, reached map[string]bool, full func() any, translate func(*testing.T, any) outcome) {
	t.Helper()
	before := translate(t, full())
	if before.err != nil {
		t.Fatalf("the full request is refused: %v", before.err)
	}
	var fields []string
	visit(reflect.ValueOf(full()), func(field string, _ reflect.Value) bool {
		fields = append(fields, field)
		return false
	})
	for _, field := range fields {
		if reached[field] {
			continue
		}
		reached[field] = true
		row, ok := fateOf(field)
		if !ok {
			t.Errorf("%s is not in the table: map it, refuse it, or list it with a reason", field)
			continue
		}
		t.Run(field, func(t *testing.T) {
			changed := full()
			visit(reflect.ValueOf(changed), func(name string, value reflect.Value) bool {
				if name == field {
					mutate(t, name, value)
				}
				return name == field
			})
			judge(t, row, before, translate(t, changed))
		})
	}
}

func judge(t *testing.T, row fieldRow, before, after outcome) {
	t.Helper()
	if row.fate == refused {
		name := strings.ToLower(row.field[strings.Index(row.field, ".")+1:])
		if after.err == nil {
			t.Fatal("a request with it is accepted")
		}
		text := strings.ToLower(strings.ReplaceAll(after.err.Error(), "_", ""))
		if models.ConvertError(after.err).GetType() != models.Error_InvalidRequest || !strings.Contains(text, name) {
			t.Errorf("the error is %v, want an InvalidRequest that names it", after.err)
		}
		return
	}
	if after.err != nil {
		t.Fatalf("changing it is refused: %v", after.err)
	}
	jobChanged, definitionChanged := before.job != after.job, before.definition != after.definition
	switch row.fate {
	case inJob:
		if !jobChanged {
			t.Error("the job does not change with it")
		}
	case byDriver:
		if !definitionChanged {
			t.Error("the run info does not change with it")
		}
	case stored:
		if jobChanged {
			t.Errorf("the job changes with it (-before +after):\n%s", cmp.Diff(before.job, after.job))
		}
	case listed:
		if row.note == "" {
			t.Error("it is listed without a reason")
		}
		if jobChanged || !definitionChanged {
			t.Error("it must be carried in the run info and nowhere else")
		}
	case refused:
	}
}

// visit walks through a message and calls each with every field; it stops when each says so. It does not go below
// fields that are refused or listed.
func visit(value reflect.Value, each func(field string, value reflect.Value) bool) bool {
	switch value.Kind() {
	case reflect.Pointer:
		return !value.IsNil() && visit(value.Elem(), each)
	case reflect.Slice:
		return value.Len() > 0 && visit(value.Index(0), each)
	case reflect.Map:
		for _, key := range value.MapKeys() {
			return visit(value.MapIndex(key), each)
		}
	case reflect.Struct:
		for i := range value.NumField() {
			name := value.Type().Name() + "." + value.Type().Field(i).Name
			if each(name, value.Field(i)) {
				return true
			}
			row, _ := fateOf(name)
			if row.fate != refused && row.fate != listed && visit(value.Field(i), each) {
				return true
			}
		}
	default: // what has no fields
	}
	return false
}

// mutate gives a field another value that is as valid.
func mutate(t *testing.T, field string, value reflect.Value) {
	t.Helper()
	if row, _ := fateOf(field); row.fate == refused {
		fill(value, field, 2)
		return
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString(value.String() + "x")
	case reflect.Bool:
		value.SetBool(!value.Bool())
	case reflect.Int32, reflect.Int64:
		if field == "MetricTagValue.Dynamic" {
			value.SetInt(2)
			return
		}
		value.SetInt(value.Int() + 1 - 2*value.Int()*boolInt(isEnum(value)))
	case reflect.Uint32, reflect.Uint64:
		value.SetUint(value.Uint() + 100)
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		if value.IsNil() {
			fill(value, field, 2)
			return
		}
		value.SetZero()
	default:
		t.Fatalf("no other value for a %s", value.Kind())
	}
}

func isEnum(value reflect.Value) bool { return value.Type().PkgPath() != "" && value.Int() == 1 }

func boolInt(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// maxDepth is how deep a full request's actions are nested: enough for each kind to stand in some other.
const maxDepth = 9

func fullLRP() *models.DesiredLRP {
	lrp := &models.DesiredLRP{}
	fill(reflect.ValueOf(lrp).Elem(), "", maxDepth)
	return lrp
}

func fullTask() *models.TaskDefinition {
	task := &models.TaskDefinition{}
	fill(reflect.ValueOf(task).Elem(), "", maxDepth)
	return task
}

// fill gives every field a value, but for those that are refused.
func fill(value reflect.Value, field string, depth int) {
	if depth == 0 {
		return
	}
	switch at := value.Addr().Interface().(type) {
	case *[]*models.Check:
		// A check is of one kind.
		check := &models.Check{}
		kind := map[string]int{"CheckDefinition.Checks": 0, "CheckDefinition.ReadinessChecks": 1}[field]
		fill(reflect.ValueOf(check).Elem().Field(kind), field, depth-2)
		*at = []*models.Check{check}
		return
	case **models.Routes:
		raw := json.RawMessage(`[{"hostnames": ["a.example.com"], "port": 8080}]`)
		*at = &models.Routes{"cf-router": &raw}
		return
	case **models.ResourceLimits:
		*at = &models.ResourceLimits{}
		(*at).SetNofile(1)
		(*at).SetNproc(1)
		return
	}
	switch value.Kind() {
	case reflect.Pointer:
		value.Set(reflect.New(value.Type().Elem()))
		fill(value.Elem(), field, depth)
	case reflect.Slice:
		if depth == 1 {
			return // An element without a value could not be encoded.
		}
		value.Set(reflect.MakeSlice(value.Type(), 1, 1))
		fill(value.Index(0), field, depth-1)
	case reflect.Map:
		value.Set(reflect.MakeMap(value.Type()))
		element := reflect.New(value.Type().Elem()).Elem()
		fill(element, field, depth-1)
		value.SetMapIndex(reflect.ValueOf("key"), element)
	case reflect.Struct:
		for i := range value.NumField() {
			name := value.Type().Name() + "." + value.Type().Field(i).Name
			if row, _ := fateOf(name); row.fate != refused {
				fill(value.Field(i), name, depth-1)
			}
		}
	case reflect.String:
		value.SetString(sampleText(field))
	case reflect.Bool:
		value.SetBool(true)
	case reflect.Int32, reflect.Int64:
		value.SetInt(1)
	case reflect.Uint32, reflect.Uint64:
		value.SetUint(8080)
	default:
		// An interface, that is a oneof: set by its owner above.
	}
	if strings.HasSuffix(field, ".MemoryMb") {
		value.SetInt(64)
	}
	if strings.HasSuffix(field, ".DiskMb") {
		value.SetInt(64)
	}
}

func sampleText(field string) string {
	switch {
	case strings.HasSuffix(field, ".RootFs"):
		return "preloaded:stack"
	case field == "HTTPCheck.Path":
		return "/path"
	}
	return "text"
}

// TestFields_document keeps the rows for COMPATIBILITY.md.
func TestFields_document(t *testing.T) {
	var text strings.Builder
	text.WriteString("| field | state | how |\n|---|---|---|\n")
	for _, row := range fieldRows {
		fmt.Fprintf(&text, "| `%s` | %s | %s |\n", row.field, row.fate, row.note)
	}
	const path = "testdata/fields.md"
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s (-want +got), run make golden when the change is meant:\n%s", path, diff)
	}
}
