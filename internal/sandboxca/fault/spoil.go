package fault

import (
	"bytes"
	"net"
	"net/http"
)

// HugeBytes is more than any sensible limit on an answer.
const HugeBytes = 10 << 20

// spoil returns the answer of a fault to send instead of the proper one, or nil if it has
// none. It does not return if nothing is to be answered.
func (in *Injector) spoil(c *call, f Fault, proper *answer) *answer {
	if proper == nil {
		proper = newAnswer()
	}
	switch f.Kind {
	case HTTPStatus:
		return f.answer(http.StatusInternalServerError, "text/plain; charset=utf-8", f.Body)
	case HTML:
		return f.answer(http.StatusBadGateway, "text/html", []byte("<html><head><title>502 Bad Gateway</title></head>"+
			"<body><center><h1>502 Bad Gateway</h1></center></body></html>\n"))
	case Empty:
		return f.answer(http.StatusOK, "", nil)
	case CutOff, BadJSON:
		return f.half(c, proper)
	case Hang:
		select {
		case <-c.r.Context().Done():
		case <-in.ctx.Done():
		}
		panic(http.ErrAbortHandler)
	case Reset:
		reset(c.w)
		panic(http.ErrAbortHandler)
	case Huge:
		body := append([]byte(`{"code":1,"data":{"filler":"`), bytes.Repeat([]byte("x"), HugeBytes)...)
		return f.answer(http.StatusOK, "application/json", append(body, `"}}`...))
	case APICode:
		ans := fromDialect(c.dialect.Failure(f.Code, f.Errors))
		ans.status = f.Status
		return ans
	case Redirect:
		location := string(f.Body)
		if location == "" {
			location = c.dialect.Prefix() + "moved"
		}
		ans := f.answer(http.StatusFound, "", nil)
		ans.header.Set("Location", location)
		return ans
	case ExtraFields:
		return proper.with(AddFields(proper.body.Bytes()))
	case Shuffled:
		return proper.with(Shuffle(proper.body.Bytes(), f.Seed))
	case Strange:
		return proper.with(Shuffle(AddFields(proper.body.Bytes()), f.Seed))
	case Delay:
	}
	return nil
}

// answer is an answer with the fault's own status, or else the kind's.
func (f Fault) answer(status int, kind string, body []byte) *answer {
	ans := newAnswer()
	ans.status = status
	if f.Status != 0 {
		ans.status = f.Status
	}
	if kind != "" {
		ans.header.Set("Content-Type", kind)
	}
	ans.body.Write(body)
	return ans
}

// half is the first half of the proper answer. If there is none, as before the effect, it
// is half of a refusal in the seller's own form.
func (f Fault) half(c *call, proper *answer) *answer {
	if proper.body.Len() == 0 {
		proper = fromDialect(c.dialect.Failure(1, nil))
	}
	whole := proper.body.Bytes()
	ans := f.answer(http.StatusOK, proper.header.Get("Content-Type"), whole[:len(whole)/2])
	if f.Kind == CutOff {
		ans.declared = len(whole)
	}
	return ans
}

// reset resets the connection, if the server allows it; otherwise the aborted handler
// closes it.
func reset(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
