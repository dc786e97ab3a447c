package howssl

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// quotings returns an answer as it is, and with each of its objects and lists in turn as JSON inside
// a string.
func quotings(t *testing.T, answer string) []string {
	t.Helper()
	list := []string{answer}
	var root any
	if err := json.Unmarshal([]byte(answer), &root); err != nil {
		t.Fatal(err)
	}
	quote := func(value any, set func(any)) {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		set(string(text))
		all, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(all))
		set(value)
	}
	var walk func(value any, set func(any))
	walk = func(value any, set func(any)) {
		switch value := value.(type) {
		case map[string]any:
			quote(value, set)
			for name, member := range value {
				walk(member, func(v any) { value[name] = v })
			}
		case []any:
			quote(value, set)
			for i, element := range value {
				walk(element, func(v any) { value[i] = v })
			}
		}
	}
	walk(root, func(v any) { root = v })
	return list
}

// TestJSONInsideTextIsReadEverywhere: objects and lists may come as JSON inside a string. That is
// documented for two fields, and assumed for all.
func TestJSONInsideTextIsReadEverywhere(t *testing.T) {
	const records = `{"reissue_id":"r1","status_code":0,"csr_content":"","validity_record":[` +
		`{"domain":"a.example","name":"_l","value":"v","type":"txt"}]}`
	for path, tt := range map[string]struct {
		answer string
		read   func(*fake) any
		want   any
	}{
		"Order/createOrder": {data(`{"check_id":"c"}`), func(f *fake) any {
			id, err := f.orders.create(f.t.Context(), workedRequest())
			return [2]any{id, err}
		}, [2]any{"c", nil}},
		"Order/commitOrder": {data(`{"order_id":"o1","valid_info":` + workedInfo + `}`), func(f *fake) any {
			order, err := f.orders.Place(f.t.Context(), workedRequest())
			return [2]any{order, err}
		}, [2]any{vendors.Order{ID: "o1", Status: vendors.StatusPending, Challenges: workedChallenges()}, nil}},
		lookUpPath: {data(`{"order_id":"o1"}`), func(f *fake) any {
			f.expect("Order/getOrderInfo", nil, infoOf("0"))
			info, _, err := f.orders.lookUp(f.t.Context(), "c")
			return [2]any{info.ID, err}
		}, [2]any{"o1", nil}},
		"Order/getOrderInfo": {data(`{"order_status":11,"total_amount":[{"value":"6.95"}],` +
			`"validity_status":[{"value":"域名:b.example<br>","status":2},{"value":"","status":"1"}]}`), func(f *fake) any {
			info, err := f.orders.known(f.t.Context(), "id")
			return [4]any{info.order().Detail, info.names(), *info.Amounts[0].Value, err}
		}, [4]any{"1 of 2 names validated", []string{"b.example"}, 6.95, nil}},
		"Order/getValidity_info": {data(`{"valid_info":` + workedInfo + `}`), func(f *fake) any {
			f.expect("Order/getOrderInfo", nil, infoOf("11"))
			f.expect("Order/refreshOrder", nil, ok)
			order, err := f.orders.Status(f.t.Context(), "id")
			return [2]any{order.Challenges, err}
		}, [2]any{workedChallenges(), nil}},
		"Order/getCertificate": {data(`{"ca_order_id":7,"certificate":{"cert":` + quotedPEM("leaf") +
			`,"ca_cert":` + quotedPEM("ca") + `}}`), func(f *fake) any {
			f.expect("Order/getOrderInfo", nil, infoOf("3"))
			f.expect("Reissue/orderReissue", nil, noReissues)
			order, err := f.orders.Status(f.t.Context(), "id")
			return [3]any{order.CAOrderID, order.Certificates, err}
		}, [3]any{"7", [][]byte{[]byte("leaf"), []byte("ca")}, nil}},
		"Reissue/orderReissue": {data(`[` + records + `]`), func(f *fake) any {
			f.expect("Order/getOrderInfo", nil, infoOf("3"))
			f.expect("Order/refreshOrder", nil, ok)
			order, err := f.orders.Status(f.t.Context(), "id")
			return [2]any{order.Challenges, err}
		}, [2]any{[]vendors.Challenge{
			{Name: "a.example", Method: vendors.MethodDNS, RecordName: "_l", RecordType: "TXT", RecordValue: "v"}}, nil}},
		"Reissue/submit": {`{"status":false,"data":{"reissue_id":"r1"}}`, func(f *fake) any {
			f.expect("Order/getOrderInfo", nil, infoOf("3"))
			f.expect("Reissue/orderReissue", nil, noReissues)
			_, err := f.orders.Reissue(f.t.Context(), "id", workedReissue())
			return [2]any{err != nil, vendors.VerdictOf(err)}
		}, [2]any{true, vendors.Uncertain}},
		"User/AccountInfo": {data(`{"user_amount":"0.00"}`), func(f *fake) any {
			return f.orders.isPoor(f.t.Context(), orderInfo{})
		}, true},
		"Product_info/lists": {data(`[{"product_code":"p","prices_info":[{"label":"12","price":"6.95"}]}]`), func(f *fake) any {
			products, err := f.orders.Products(f.t.Context())
			return [2]any{products, err}
		}, [2]any{[]vendors.Product{{Code: "p", Prices: map[int]string{12: "6.95"}}}, nil}},
	} {
		t.Run(path, func(t *testing.T) {
			answers := quotings(t, tt.answer)
			if len(answers) < 3 {
				t.Fatalf("%d answers", len(answers))
			}
			for _, answer := range answers {
				f := newFake(t)
				f.expect(path, nil, answer)
				if got := tt.read(f); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%s:\ngot  %+v\nwant %+v", answer, got, tt.want)
				}
			}
		})
	}
}
