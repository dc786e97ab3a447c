package howssl

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Products implements vendors.ProductLister, page by page.
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	const size, maxPages = 100, 50
	ep := productList
	var products []vendors.Product
	for page := 1; page <= maxPages; page++ {
		form := []field{{"page", strconv.Itoa(page)}, {"size", strconv.Itoa(size)}}
		data, err := o.client.call(ctx, ep, form...)
		if e, ok := errors.AsType[*vendors.Error](err); ok && e.HTTPStatus == http.StatusNotFound && ep == productList {
			ep = productListEN
			data, err = o.client.call(ctx, ep, form...)
		}
		if err != nil {
			return nil, err
		}
		var list []productData
		_ = json.Unmarshal(data, &list)
		for _, p := range list {
			products = append(products, p.product())
		}
		if len(list) < size {
			break
		}
	}
	return products, nil
}

func (p productData) product() vendors.Product {
	product := vendors.Product{
		Code:       p.Code.Word(),
		Name:       p.Name.Word(),
		Validation: strings.ToLower(p.AuditType.Word()),
		Wildcard:   p.DomainType.Word() == "3" || p.DomainType.Word() == "4",
		Prices:     make(map[int]string),
	}
	if p.DomainType.Word() == "1" || p.DomainType.Word() == "3" {
		product.MaxNames = 1
	}
	for _, row := range p.Prices.V {
		if months, err := strconv.Atoi(row.Months.Word()); err == nil && row.Price.Word() != "" {
			product.Prices[months] = row.Price.Word()
		}
	}
	return product
}
