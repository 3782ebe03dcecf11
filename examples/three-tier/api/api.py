"""The guest book's service.

GET /entries   all lines, the newest first, as JSON
POST /entries  adds the body as a line
GET /health    200 while the database answers
"""

import http.server
import json
import os
import sys
import urllib.request

import postgres


def query(sql, *parameters):
    connection = postgres.Connection(
        os.environ["DB_HOST"], os.environ["DB_USER"], os.environ["DB_PASSWORD"]
    )
    try:
        return connection.query(sql, *parameters)
    finally:
        connection.close()


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def respond(self, make):
        try:
            self.answer(*make())
        except (OSError, postgres.Error) as error:
            self.answer(503, {"error": str(error)})

    def do_GET(self):
        if self.path == "/entries":
            self.respond(
                lambda: (200, [row[0] for row in query("SELECT text FROM entry ORDER BY id DESC")])
            )
        elif self.path == "/health":
            self.respond(lambda: (200, query("SELECT 1") == [["1"]]))
        else:
            self.answer(404, {"error": "no such page"})

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path != "/entries" or not text.strip():
            return self.answer(400, {"error": "POST a line to /entries"})
        self.respond(
            lambda: (201, query("INSERT INTO entry (text) VALUES ($1) RETURNING id", text)[0][0])
        )


if sys.argv[1:] == ["--probe"]:
    urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2)
else:
    query("CREATE TABLE IF NOT EXISTS entry (id serial PRIMARY KEY, text text NOT NULL)")
    print("the guest book is open")
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
