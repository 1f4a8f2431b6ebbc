package engine

func init() { engines["epoll"] = epolls }

func epolls(h Handler, o Options) face {
	o.Epoll = true
	return New(h, o)
}
