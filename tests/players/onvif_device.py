"""An ONVIF camera of our own, by Python's standard library alone: answers to WS-Discovery, describes itself, and tells what it
notices by pull points.

Usage: onvif_device.py IP JSON. Listens at IP for SOAP on a port of its own, and on UDP port 3702 if "discovery" is set (by
multicast if that is "multicast"). The JSON: user, password, auth ("wsse", "digest" or none), clock (seconds that its clock is
off), profiles (a list of {token, source, codec, width, height, uri}), media2, host (the host that it says it has), garbage.
Prints its port; then each line on its input, "TOPIC NAME VALUE", is something it notices. Each request is a line of output.
"""
import base64
import datetime
import hashlib
import json
import queue
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

ip, settings = sys.argv[1], json.loads(sys.argv[2])
user, password = settings.get('user', 'admin'), settings.get('password', 'secret')
nonce = 'dcd98b7102dd2f0e8b11d0f600bfb0c093'
subscriptions, count = {}, 0
states = {}
spaces = ('xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:tds="http://www.onvif.org/ver10/device/wsdl" '
          'xmlns:trt="http://www.onvif.org/ver10/media/wsdl" xmlns:tr2="http://www.onvif.org/ver20/media/wsdl" '
          'xmlns:tev="http://www.onvif.org/ver10/events/wsdl" xmlns:wsnt="http://docs.oasis-open.org/wsn/b-2" '
          'xmlns:wsa="http://www.w3.org/2005/08/addressing" xmlns:tt="http://www.onvif.org/ver10/schema" '
          'xmlns:ter="http://www.onvif.org/ver10/error" xmlns:tns1="http://www.onvif.org/ver10/topics"')


def say(line):
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def now():
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=settings.get('clock', 0))


def envelope(body):
    return f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope {spaces}><s:Body>{body}</s:Body></s:Envelope>'


def fault(subcode, reason):
    return envelope(f'<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode>'
                    f'</s:Code><s:Reason><s:Text xml:lang="en">{reason}</s:Text></s:Reason></s:Fault>')


def known(request):
    """WS-Security UsernameToken Profile 1.0, by digest."""
    get = lambda name: (re.search(rf'<(?:\w+:)?{name}(?: [^>]*)?>([^<]*)<', request) or [None, ''])[1]
    created = get('Created')
    if get('Username') != user or not created:
        return False
    at = datetime.datetime.fromisoformat(created.replace('Z', '+00:00'))
    if abs((at - now()).total_seconds()) > 30:
        return False
    digest = hashlib.sha1(base64.b64decode(get('Nonce')) + created.encode() + password.encode()).digest()
    return base64.b64encode(digest).decode() == get('Password')


def digest_fits(header, method):
    get = lambda name: (re.search(rf'{name}="?([^",]*)', header or '') or [None, ''])[1]
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()
    first, second = md5(f'{user}:camera:{password}'), md5(f'{method}:{get("uri")}')
    wanted = md5(f'{first}:{nonce}:{get(" nc")}:{get("cnonce")}:auth:{second}')
    return bool(header) and get('username') == user and get('response') == wanted


def encoder(profile, newer):
    rate = '<tt:RateControl><tt:FrameRateLimit>25</tt:FrameRateLimit>'
    rate += '' if newer else '<tt:EncodingInterval>1</tt:EncodingInterval>'
    rate += '<tt:BitrateLimit>4096</tt:BitrateLimit></tt:RateControl>'
    return (f'token="enc-{profile["token"]}"><tt:Name>e</tt:Name><tt:UseCount>1</tt:UseCount>'
            f'<tt:Encoding>{profile["codec"]}</tt:Encoding><tt:Resolution><tt:Width>{profile["width"]}</tt:Width>'
            f'<tt:Height>{profile["height"]}</tt:Height></tt:Resolution><tt:Quality>4</tt:Quality>{rate}')


def source(profile):
    return (f'token="vsc-{profile["source"]}"><tt:Name>v</tt:Name><tt:UseCount>1</tt:UseCount>'
            f'<tt:SourceToken>{profile["source"]}</tt:SourceToken><tt:Bounds x="0" y="0" width="1" height="1"/>')


def notification(topic, source, name, value, operation):
    at = now().strftime('%Y-%m-%dT%H:%M:%SZ')
    return (f'<wsnt:NotificationMessage><wsnt:Topic Dialect="http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet">'
            f'{topic}</wsnt:Topic><wsnt:Message><tt:Message UtcTime="{at}" PropertyOperation="{operation}"><tt:Source>'
            f'<tt:SimpleItem Name="VideoSourceConfigurationToken" Value="{source}"/></tt:Source><tt:Data>'
            f'<tt:SimpleItem Name="{name}" Value="{escape(value)}"/></tt:Data></tt:Message></wsnt:Message>'
            f'</wsnt:NotificationMessage>')


def answer(operation, request, path, base):
    global count
    profiles = settings.get('profiles', [])
    if operation == 'GetSystemDateAndTime':
        at = now()
        return (f'<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType>'
                f'<tt:DaylightSavings>false</tt:DaylightSavings><tt:UTCDateTime><tt:Time><tt:Hour>{at.hour}</tt:Hour>'
                f'<tt:Minute>{at.minute}</tt:Minute><tt:Second>{at.second}</tt:Second></tt:Time><tt:Date>'
                f'<tt:Year>{at.year}</tt:Year><tt:Month>{at.month}</tt:Month><tt:Day>{at.day}</tt:Day></tt:Date>'
                f'</tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>')
    if operation == 'GetCapabilities':
        return (f'<tds:GetCapabilitiesResponse><tds:Capabilities><tt:Device><tt:XAddr>{base}/onvif/device_service</tt:XAddr>'
                f'</tt:Device><tt:Events><tt:XAddr>{base}/onvif/events</tt:XAddr><tt:WSPullPointSupport>true'
                f'</tt:WSPullPointSupport></tt:Events><tt:Media><tt:XAddr>{base}/onvif/media</tt:XAddr></tt:Media>'
                f'</tds:Capabilities></tds:GetCapabilitiesResponse>')
    if operation == 'GetServices':
        services = [('http://www.onvif.org/ver10/device/wsdl', 'device_service')]
        if settings.get('media2'):
            services.append(('http://www.onvif.org/ver20/media/wsdl', 'media2'))
        return '<tds:GetServicesResponse>' + ''.join(
            f'<tds:Service><tds:Namespace>{name}</tds:Namespace><tds:XAddr>{base}/onvif/{at}</tds:XAddr><tds:Version>'
            f'<tt:Major>2</tt:Major><tt:Minor>0</tt:Minor></tds:Version></tds:Service>' for name, at in services
        ) + '</tds:GetServicesResponse>'
    if operation == 'GetDeviceInformation':
        return ('<tds:GetDeviceInformationResponse><tds:Manufacturer>Example &amp; Sons</tds:Manufacturer><tds:Model>Eye 2'
                '</tds:Model><tds:FirmwareVersion>1.2.3</tds:FirmwareVersion><tds:SerialNumber>0042</tds:SerialNumber>'
                '<tds:HardwareId>9</tds:HardwareId></tds:GetDeviceInformationResponse>')
    newer = path.endswith('/media2')
    space = 'tr2' if newer else 'trt'
    if operation == 'GetVideoEncoderConfigurations':
        return (f'<{space}:GetVideoEncoderConfigurationsResponse>'
                + ''.join(f'<{space}:Configurations {encoder(p, newer)}</{space}:Configurations>' for p in profiles)
                + f'</{space}:GetVideoEncoderConfigurationsResponse>')
    if operation == 'GetProfiles' and newer:
        return '<tr2:GetProfilesResponse>' + ''.join(
            f'<tr2:Profiles token="{p["token"]}" fixed="true"><tr2:Name>{p["token"]}</tr2:Name><tr2:Configurations>'
            f'<tr2:VideoSource {source(p)}</tr2:VideoSource><tr2:VideoEncoder {encoder(p, True)}</tr2:VideoEncoder>'
            f'</tr2:Configurations></tr2:Profiles>' for p in profiles) + '</tr2:GetProfilesResponse>'
    if operation == 'GetProfiles':
        return '<trt:GetProfilesResponse>' + ''.join(
            f'<trt:Profiles token="{p["token"]}" fixed="true"><tt:Name>{p["token"]}</tt:Name>'
            f'<tt:VideoSourceConfiguration {source(p)}</tt:VideoSourceConfiguration><tt:VideoEncoderConfiguration '
            f'{encoder(p, False)}</tt:VideoEncoderConfiguration></trt:Profiles>' for p in profiles) + '</trt:GetProfilesResponse>'
    if operation == 'GetStreamUri':
        token = re.search(r'ProfileToken>([^<]*)<', request)[1]
        uri = escape(next(p['uri'] for p in profiles if p['token'] == token))
        if newer:
            return f'<tr2:GetStreamUriResponse><tr2:Uri>{uri}</tr2:Uri></tr2:GetStreamUriResponse>'
        return (f'<trt:GetStreamUriResponse><trt:MediaUri><tt:Uri>{uri}</tt:Uri><tt:InvalidAfterConnect>false'
                f'</tt:InvalidAfterConnect><tt:InvalidAfterReboot>false</tt:InvalidAfterReboot><tt:Timeout>PT0S</tt:Timeout>'
                f'</trt:MediaUri></trt:GetStreamUriResponse>')
    end = (now() + datetime.timedelta(seconds=60)).strftime('%Y-%m-%dT%H:%M:%SZ')
    times = f'<wsnt:CurrentTime>{now():%Y-%m-%dT%H:%M:%SZ}</wsnt:CurrentTime><wsnt:TerminationTime>{end}</wsnt:TerminationTime>'
    if operation == 'CreatePullPointSubscription':
        count += 1
        waiting = subscriptions[f'/onvif/events/{count}'] = queue.Queue()
        for (topic, eye), (name, value) in states.items():
            waiting.put(notification(topic, eye, name, value, 'Initialized'))
        return (f'<tev:CreatePullPointSubscriptionResponse><tev:SubscriptionReference><wsa:Address>{base}/onvif/events/{count}'
                f'</wsa:Address></tev:SubscriptionReference>{times}</tev:CreatePullPointSubscriptionResponse>')
    if path not in subscriptions:
        return None
    if operation == 'PullMessages':
        messages, waiting = [], subscriptions[path]
        try:
            messages.append(waiting.get(timeout=5))
            while True:
                messages.append(waiting.get_nowait())
        except queue.Empty:
            pass
        return f'<tev:PullMessagesResponse>{times.replace("wsnt:", "tev:")}{"".join(messages)}</tev:PullMessagesResponse>'
    if operation == 'Renew':
        return f'<wsnt:RenewResponse>{times}</wsnt:RenewResponse>'
    if operation == 'Unsubscribe':
        del subscriptions[path]
        return '<wsnt:UnsubscribeResponse/>'
    return None


class Device(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        request = self.rfile.read(int(self.headers.get('content-length', 0))).decode()
        operation = (re.search(r'<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)', request) or [None, '?'])[1]
        say(f'{operation} {self.path}')
        status, text = 200, None
        if settings.get('garbage') == 'endless':
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b'<x>' * 20000)
            except OSError:
                return
        if settings.get('garbage') == 'silent':
            time.sleep(60)
        if settings.get('garbage') == 'html':
            text = '<html><body>Welcome</body></html>'
        elif settings.get('auth') == 'digest' and not digest_fits(self.headers.get('authorization'), 'POST'):
            self.send_response(401)
            self.send_header('WWW-Authenticate', 'Basic realm="camera"')
            self.send_header('WWW-Authenticate', f'Digest realm="camera", nonce="{nonce}", qop="auth"')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        elif settings.get('auth') == 'wsse' and operation != 'GetSystemDateAndTime' and not known(request):
            status, text = 400, fault('ter:NotAuthorized', 'Sender not Authorized')
        else:
            host = settings.get('host') or f'{ip}:{self.server.server_port}'
            body = answer(operation, request, self.path, f'http://{host}')
            status, text = (200, envelope(body)) if body else (500, fault('ter:ActionNotSupported', operation))
        data = text.encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/soap+xml; charset=utf-8')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def discovery(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings['discovery'] == 'multicast':
        sock.bind(('', 3702))
        group = struct.pack('4s4s', socket.inet_aton('239.255.255.250'), socket.inet_aton(ip))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    else:
        sock.bind((ip, 3702))
    while True:
        probe, sender = sock.recvfrom(65536)
        probe = probe.decode(errors='replace')
        message = re.search(r'MessageID[^>]*>([^<]*)<', probe)
        if 'Probe' not in probe or not message:
            continue
        say('Probe')
        host = settings.get('host') or f'{ip}:{port}'
        reply = (f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
                 f'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
                 f'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" '
                 f'xmlns:dn="http://www.onvif.org/ver10/network/wsdl"><s:Header><a:MessageID>urn:uuid:{port}-1</a:MessageID>'
                 f'<a:RelatesTo>{message[1]}</a:RelatesTo><a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous'
                 f'</a:To><a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/ProbeMatches</a:Action></s:Header><s:Body>'
                 f'<d:ProbeMatches><d:ProbeMatch><a:EndpointReference><a:Address>urn:uuid:00000000-0000-0000-0000-{port:012}'
                 f'</a:Address></a:EndpointReference><d:Types>dn:NetworkVideoTransmitter</d:Types><d:Scopes>'
                 f'onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/Front%20Door '
                 f'onvif://www.onvif.org/hardware/Eye-2 onvif://www.onvif.org/location/Yard</d:Scopes>'
                 f'<d:XAddrs>http://{host}/onvif/device_service</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>'
                 f'</d:ProbeMatch></d:ProbeMatches></s:Body></s:Envelope>')
        sock.sendto(reply.encode(), sender)


server = ThreadingHTTPServer((ip, settings.get('port', 0)), Device)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
if settings.get('discovery'):
    threading.Thread(target=discovery, args=(server.server_port,), daemon=True).start()
    time.sleep(0.2)
say(str(server.server_port))
for line in sys.stdin:
    if not line.strip():
        continue
    topic, name, value = line.split()
    states[(topic, 'eye-1')] = (name, value)
    for waiting in list(subscriptions.values()):
        waiting.put(notification(topic, 'eye-1', name, value, 'Changed'))
