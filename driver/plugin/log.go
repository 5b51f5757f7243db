package plugin

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logHandler lets the packages below log by log/slog into the agent's log.
type logHandler struct{ to hclog.Logger }

var _ slog.Handler = logHandler{}

func (h logHandler) Enabled(_ context.Context, level slog.Level) bool {
	switch {
	case level >= slog.LevelError:
		return h.to.IsError()
	case level >= slog.LevelWarn:
		return h.to.IsWarn()
	case level >= slog.LevelInfo:
		return h.to.IsInfo()
	}
	return h.to.IsDebug()
}

func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	args := make([]any, 0, 2*r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, a.Key, a.Value.Resolve().Any())
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		h.to.Error(r.Message, args...)
	case r.Level >= slog.LevelWarn:
		h.to.Warn(r.Message, args...)
	case r.Level >= slog.LevelInfo:
		h.to.Info(r.Message, args...)
	default:
		h.to.Debug(r.Message, args...)
	}
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	args := make([]any, 0, 2*len(attrs))
	for _, a := range attrs {
		args = append(args, a.Key, a.Value.Resolve().Any())
	}
	return logHandler{h.to.With(args...)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.to.Named(name)} }
