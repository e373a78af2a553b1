wrk.headers["Host"] = "web.test"
