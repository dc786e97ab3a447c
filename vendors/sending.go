package vendors

import "context"

type beforeSending struct{}

// BeforeSending makes the paid calls under the context ask check at the last moment, when
// the connection stands and the request is about to be written to it. If check fails,
// nothing is sent, and its error is the cause of the call's, which had no effect.
func BeforeSending(ctx context.Context, check func() error) context.Context {
	return context.WithValue(ctx, beforeSending{}, check)
}

// LastCheck asks the check of BeforeSending, if there is one. A vendor calls it when the
// first byte of a paid request would leave.
func LastCheck(ctx context.Context) error {
	if check, ok := ctx.Value(beforeSending{}).(func() error); ok {
		return check()
	}
	return nil
}
