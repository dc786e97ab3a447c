package vendors

import "context"

type beforeSending struct{}

// BeforeSending makes paid calls with the returned context call check at the last moment,
// when the connection is established and the request is about to be written to it. If
// check fails, nothing is sent, and its error is the cause of the call's error; the call
// had no effect.
func BeforeSending(ctx context.Context, check func() error) context.Context {
	return context.WithValue(ctx, beforeSending{}, check)
}

// LastCheck calls the check of BeforeSending, if there is one. A vendor calls it just
// before the first byte of a paid request leaves.
func LastCheck(ctx context.Context) error {
	if check, ok := ctx.Value(beforeSending{}).(func() error); ok {
		return check()
	}
	return nil
}
