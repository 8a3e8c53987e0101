"""A bundle behind HTTP: `edgewren serve`. Read in the order in which a request meets it.

`server` (the process: sockets, signals, draining) lets `connections` bound what comes before a request, and hands it to
`app` (routes), `body` reads and bounds its bytes, `messages` turns JSON into texts and scores into JSON, `queue` holds
the texts until a worker has scored them with the public `Classifier`. Beside them: `models` (what is served, and
whether it is fit to), `openapi` (the description), `telling` (metrics, without texts), `page` (the web page).

Needs the extra `serve` (Starlette and uvicorn).
"""
