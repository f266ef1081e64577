"""A receiver of OTLP over HTTP for the tests: reads what comes by the official schema, and writes it down as JSON, a line each.

python otlp_receiver.py FILE prints the port that it listens at. It answers 503 while FILE.refuse is there, and wants the header "x-key: geheim".
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status = 200
        if os.path.exists(sys.argv[1] + ".refuse"):
            status = 503
        elif self.headers["x-key"] != "geheim":
            status = 401
        elif self.headers["content-type"] != "application/x-protobuf" or self.path not in KINDS:
            status = 400
        else:
            message = KINDS[self.path]()
            message.ParseFromString(body)
            line = json.dumps({"kind": self.path, "message": MessageToDict(message)}) + "\n"
            with open(sys.argv[1], "a") as file:
                file.write(line)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
