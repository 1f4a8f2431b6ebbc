package socketmeta

// Keys is a list of named HMAC keys: the first signs, all verify, so that a key is rotated by
// putting a new one in front and taking the old one away a token's life later.
type Keys struct {
	list []key
}

type key struct {
	id     string
	secret []byte
}
