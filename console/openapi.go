package console

import (
	_ "embed"
	"net/http"
)

// openAPI describes the whole HTTP API (OpenAPI 3.1), with the doors of other
// packages; tests hold it against the routes and the types.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache") // nothing in it is anybody's
	w.Write(openAPI)
}
