package engine

import "github.com/gobwas/ws"

// The close codes that gobwas/ws has no name for.
const (
	codeServiceRestart ws.StatusCode = 1012
	codeTryAgainLater  ws.StatusCode = 1013
	codeBadGateway     ws.StatusCode = 1014
)

// codeOnWire says whether a close frame may carry the code: those of RFC 6455 section 7.4 and
// IANA's registry, and the ranges for libraries (3000-3999) and applications (4000-4999).
// gobwas/ws refuses 1012-1014 and takes 5000.
func codeOnWire(c ws.StatusCode) bool {
	switch c {
	case ws.StatusNormalClosure, ws.StatusGoingAway, ws.StatusProtocolError, ws.StatusUnsupportedData,
		ws.StatusInvalidFramePayloadData, ws.StatusPolicyViolation, ws.StatusMessageTooBig,
		ws.StatusMandatoryExt, ws.StatusInternalServerError,
		codeServiceRestart, codeTryAgainLater, codeBadGateway:
		return true
	}
	return c >= 3000 && c <= 4999
}
