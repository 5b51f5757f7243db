package bbs

import (
	"context"
	"errors"

	"code.cloudfoundry.org/bbs/models"
)

// message is what every generated type of bbs/models can do.
type message interface {
	Marshal() ([]byte, error)
}

// request is a message that a client sends us; T is its plain type.
type request[T any] interface {
	*T
	Unmarshal([]byte) error
	Validate() error
}

// answer turns a body, or the reason why there is none, into a reply.
type answer func(ctx context.Context, body []byte, bad *models.Error) reply

// reply is what is sent, and what the log says about it.
type reply struct {
	message     message
	guid        string
	refused     *models.Error // told to the client
	unavailable error         // kept from the client, who hears 503
}

// call is one use of the Runtime. Its message counts when its error is nil.
type call[P any] func(ctx context.Context, request P) (message, error)

// refusal makes a route's response out of an error.
type refusal func(*models.Error) message

// read answers a route that changes nothing: when the client goes away, so does the work.
func read[T any, P request[T]](do call[P], refuse refusal) answer {
	return func(ctx context.Context, body []byte, bad *models.Error) reply {
		q := P(new(T))
		if bad == nil {
			bad = decode[T](q, body)
		}
		if bad != nil {
			return reply{message: refuse(bad), guid: subject(q), refused: bad}
		}
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		m, err := do(ctx, q)
		var known *models.Error
		switch {
		case err == nil:
			return reply{message: m, guid: subject(q)}
		case errors.As(err, &known) && known != nil:
			return reply{message: refuse(known), guid: subject(q), refused: known}
		default:
			return reply{guid: subject(q), unavailable: err}
		}
	}
}

// change answers a route that changes something. It is finished although the client went away, because a client that
// comes back takes "exists" for success and would never ask for the missing half.
func change[T any, P request[T]](do func(context.Context, P) error, refuse refusal) answer {
	inner := read(func(ctx context.Context, q P) (message, error) {
		return refuse(nil), do(ctx, q)
	}, refuse)
	return func(ctx context.Context, body []byte, bad *models.Error) reply {
		return inner(context.WithoutCancel(ctx), body, bad)
	}
}

// incomplete is what a client hears that left out what a check dereferences.
const incomplete = "the request is incomplete: a part of a part, such as the action inside an action, is empty"

// decode reads and checks a request. Some of the checks that we share with Diego dereference what a client left out,
// such as the action inside a timeout; that is the client's mistake and not the end of the connection.
func decode[T any, P request[T]](q P, body []byte) (bad *models.Error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			bad = models.NewError(models.Error_InvalidRequest, incomplete)
		}
	}()
	if err := q.Unmarshal(body); err != nil {
		return models.ErrBadRequest
	}
	if err := q.Validate(); err != nil {
		return models.NewError(models.Error_InvalidRequest, err.Error())
	}
	return nil
}

// subject is the guid, or the domain, that a request is about, for the log.
func subject(q any) string {
	switch q := q.(type) {
	case *models.DesireLRPRequest:
		return q.GetDesiredLrp().GetProcessGuid()
	case *models.RetireActualLRPRequest:
		return q.GetActualLrpKey().GetProcessGuid()
	case *models.UpsertDomainRequest:
		return q.GetDomain()
	case interface{ GetProcessGuid() string }:
		return q.GetProcessGuid()
	case interface{ GetTaskGuid() string }:
		return q.GetTaskGuid()
	default:
		return ""
	}
}
