//! A camera simulator on gst-rtsp-server.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_video as gst_video;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a camera may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a path of a camera is made and behaves.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The launch line, with payloaders `pay0`, `pay1`, … An `identity name=stamp` on I420 video gets the
    /// frame counter.
    pub launch: String,
    /// It travels by UDP alone: SETUP for TCP is answered with 461.
    pub only_udp: bool,
}

impl Feed {
    /// 320x240 H.264 at 25 fps, a keyframe a second, with the counter.
    pub fn h264() -> Self {
        Self::h264_with("", "")
    }

    /// The same with additional elements behind the encoder and properties of the payloader.
    pub fn h264_with(behind: &str, pay: &str) -> Self {
        Self::custom(format!(
            "( videotestsrc is-live=true pattern=black ! videoscale ! capsfilter name=size \
                 caps=video/x-raw,format=I420,width=384,height=240,framerate=25/1 ! identity name=stamp \
                 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=300 ! valve name=gate \
                 {behind} ! rtph264pay name=pay0 pt=96 config-interval=-1 {pay} )"
        ))
    }

    /// H.264 with sound (AAC, or PCMU if `pcmu`).
    pub fn with_audio(pcmu: bool) -> Self {
        let video = Self::h264().launch;
        let audio = if pcmu {
            "audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1"
        } else {
            "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! audioconvert ! avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97"
        };
        Self::custom(format!("{} {audio} )", video.trim_end_matches(')')))
    }

    /// Anything else.
    pub fn custom(launch: impl Into<String>) -> Self {
        Self { launch: launch.into(), only_udp: false }
    }
}

/// Credentials a camera demands.
#[derive(Clone, Debug)]
pub struct Auth {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
    /// Digest rather than basic.
    pub digest: bool,
}

/// An RTSP server with any number of paths. Dropping it ends it.
pub struct Camera {
    port: u16,
    feeds: HashMap<String, Feed>,
    auth: Option<Auth>,
    /// Certificate and key in PEM: it speaks TLS then.
    tls: Option<String>,
    running: Option<Running>,
    /// Goes on over restarts, so that frames of different lives can be told apart.
    counter: Arc<AtomicU32>,
    medias: Arc<Mutex<Vec<glib::WeakRef<gst::Element>>>>,
}

struct Running {
    main_loop: glib::MainLoop,
    thread: std::thread::JoinHandle<()>,
}

impl Camera {
    /// A camera with one path, `/live`.
    pub fn start(feed: Feed) -> Self {
        Self::with(HashMap::from([("/live".to_owned(), feed)]), None)
    }

    /// A camera that demands credentials.
    pub fn with_auth(feed: Feed, auth: Auth) -> Self {
        Self::with(HashMap::from([("/live".to_owned(), feed)]), Some(auth))
    }

    /// A camera with many paths.
    pub fn with(feeds: HashMap<String, Feed>, auth: Option<Auth>) -> Self {
        Self::start_with(feeds, auth, None)
    }

    /// A camera that speaks RTSP over TLS, with a certificate of its own making.
    pub fn with_tls(feed: Feed) -> Self {
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=camera"])
            .args(["-keyout", "-", "-out", "-"])
            .output()
            .expect("openssl is not installed");
        let pem = String::from_utf8(output.stdout).unwrap();
        Self::start_with(HashMap::from([("/live".to_owned(), feed)]), None, Some(pem))
    }

    /// The same with a certificate and its key, both PEM.
    pub fn with_certificate(feed: Feed, pem: String) -> Self {
        Self::start_with(HashMap::from([("/live".to_owned(), feed)]), None, Some(pem))
    }

    /// The SHA-256 hash of its certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camera.pem");
        std::fs::write(&path, self.tls.as_ref().unwrap()).unwrap();
        let output = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&path)
            .output()
            .expect("openssl is not installed");
        String::from_utf8(output.stdout).unwrap().trim().split_once('=').unwrap().1.to_owned()
    }

    fn start_with(feeds: HashMap<String, Feed>, auth: Option<Auth>, tls: Option<String>) -> Self {
        gst::init().unwrap();
        let mut camera = Self {
            port: 0,
            feeds,
            auth,
            tls,
            running: None,
            counter: Arc::default(),
            medias: Arc::default(),
        };
        camera.revive();
        camera
    }

    /// Where it is reached, with the credentials in it if it demands some.
    pub fn url(&self) -> String {
        self.url_of("/live")
    }

    /// Where a path is reached.
    pub fn url_of(&self, path: &str) -> String {
        let user = self.auth.as_ref().map(|a| format!("{}:{}@", a.user, a.password)).unwrap_or_default();
        let scheme = if self.tls.is_some() { "rtsps" } else { "rtsp" };
        format!("{scheme}://{user}127.0.0.1:{}{path}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number that the next frame will carry.
    pub fn counter(&self) -> u32 {
        self.counter.load(Ordering::SeqCst)
    }

    /// Ends it: connections break, the port is closed.
    #[expect(clippy::print_stderr, reason = "whoever reads what a test printed is to know of it")]
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // One that has only just been started does not hear it before its loop runs.
            let begun = Instant::now();
            while !running.thread.is_finished() && begun.elapsed() < PATIENCE {
                running.main_loop.quit();
                std::thread::sleep(Duration::from_millis(5));
            }
            if running.thread.is_finished() {
                running.thread.join().unwrap();
            } else {
                // gst-rtsp-server 1.22: its sender by TCP may wait for a packet while it holds what stopping the media needs. The port
                // is closed by then, and nothing is sent any more.
                eprintln!("gst-rtsp-server does not end; the camera is left to itself");
            }
        }
        self.medias.lock().unwrap().clear();
    }

    /// Brings it back on the same port.
    pub fn revive(&mut self) {
        if self.running.is_some() {
            return;
        }
        let (ready, wait) = std::sync::mpsc::channel();
        let (feeds, auth, tls, port) = (self.feeds.clone(), self.auth.clone(), self.tls.clone(), self.port);
        let (counter, medias) = (self.counter.clone(), self.medias.clone());
        let thread = std::thread::spawn(move || {
            let context = glib::MainContext::new();
            context
                .with_thread_default(|| {
                    let server = rtsp::RTSPServer::new();
                    // Its clients are this thread's too: closed from another one, they may be in the midst of something, and then
                    // gst-rtsp-server goes on with a connection that is not there.
                    let pool = rtsp::RTSPThreadPool::new();
                    pool.set_max_threads(0);
                    server.set_thread_pool(Some(&pool));
                    outlive_their_end(&server, &context);
                    server.set_address("127.0.0.1");
                    server.set_service(&port.to_string());
                    let mounts = server.mount_points().unwrap();
                    for (path, feed) in &feeds {
                        mounts.add_factory(
                            path,
                            make_factory(feed, auth.as_ref(), tls.is_some(), &counter, &medias),
                        );
                    }
                    if let Some(auth) = &auth {
                        server.set_auth(Some(&make_auth(auth)));
                    }
                    if let Some(pem) = &tls {
                        let auth = rtsp::RTSPAuth::new();
                        auth.set_tls_certificate(Some(&gio::TlsCertificate::from_pem(pem).unwrap()));
                        let token =
                            rtsp::RTSPToken::builder().field("media.factory.role", "anonymous").build();
                        let mut token = token;
                        auth.set_default_token(Some(&mut token));
                        server.set_auth(Some(&auth));
                    }
                    let id = server.attach(Some(&context)).expect("the camera's port is taken");
                    let main_loop = glib::MainLoop::new(Some(&context), false);
                    ready.send((main_loop.clone(), server.bound_port())).unwrap();
                    main_loop.run();
                    if let Some(source) = context.find_source_by_id(&id) {
                        source.destroy();
                    }
                    server.client_filter(Some(&mut |_, client: &rtsp::RTSPClient| {
                        client.close();
                        rtsp::RTSPFilterResult::Remove
                    }));
                })
                .unwrap();
        });
        let (main_loop, port) = wait.recv().unwrap();
        self.port = u16::try_from(port).unwrap();
        self.running = Some(Running { main_loop, thread });
    }

    fn for_each_element(&self, name: &str, act: impl Fn(&gst::Element)) {
        for media in self.medias.lock().unwrap().iter().filter_map(glib::WeakRef::upgrade) {
            let bin = media.downcast_ref::<gst::Bin>().unwrap();
            bin.by_name(name).iter().for_each(&act);
        }
    }

    /// Sends nothing, though the connection stays.
    pub fn stall(&self, stalled: bool) {
        self.for_each_element("gate", |gate| gate.set_property("drop", stalled));
    }

    /// Changes the picture's size in mid-stream.
    pub fn resize(&self, width: i32, height: i32) {
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", width)
            .field("height", height)
            .field("framerate", gst::Fraction::new(25, 1))
            .build();
        self.for_each_element("size", |filter| filter.set_property("caps", &caps));
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that is told to go is closed by an idle source of gst-rtsp-server's that holds no reference; one that goes by itself at
/// that moment would be gone by then. Each stays until such a source has had its turn.
fn outlive_their_end(server: &rtsp::RTSPServer, context: &glib::MainContext) {
    let context = context.clone();
    server.connect_client_connected(move |_, client| {
        let context = context.clone();
        client.connect_closed(move |client| {
            let client = client.clone();
            let last = glib::idle_source_new(None, glib::Priority::LOW, move || {
                let _stays = &client;
                glib::ControlFlow::Break
            });
            last.attach(Some(&context));
        });
    });
}

fn make_factory(
    feed: &Feed,
    auth: Option<&Auth>,
    tls: bool,
    counter: &Arc<AtomicU32>,
    medias: &Arc<Mutex<Vec<glib::WeakRef<gst::Element>>>>,
) -> rtsp::RTSPMediaFactory {
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&feed.launch);
    factory.set_shared(true);
    if feed.only_udp {
        factory.set_property_from_str("protocols", "udp");
    }
    if let Some(user) = auth.map(|a| a.user.clone()).or_else(|| tls.then(|| "anonymous".to_owned())) {
        factory.add_role_from_structure(
            &gst::Structure::builder(user)
                .field("media.factory.access", true)
                .field("media.factory.construct", true)
                .build(),
        );
    }
    let (counter, medias) = (counter.clone(), medias.clone());
    factory.connect_media_configure(move |_, media| {
        let element = media.element();
        medias.lock().unwrap().push(element.downgrade());
        let bin = element.downcast::<gst::Bin>().unwrap();
        if let Some(stamp) = bin.by_name("stamp") {
            let counter = counter.clone();
            stamp.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                if let (Some(buffer), Some(caps)) = (info.buffer_mut(), pad.current_caps()) {
                    stamp_counter(buffer.make_mut(), &caps, number);
                }
                gst::PadProbeReturn::Ok
            });
        }
    });
    factory
}

fn make_auth(auth: &Auth) -> rtsp::RTSPAuth {
    let made = rtsp::RTSPAuth::new();
    let token = rtsp::RTSPToken::builder().field("media.factory.role", &auth.user).build();
    if auth.digest {
        made.set_supported_methods(gstreamer_rtsp_server::gst_rtsp::RTSPAuthMethod::Digest);
        made.add_digest(&auth.user, &auth.password, &token);
    } else {
        let basic = rtsp::RTSPAuth::make_basic(&auth.user, &auth.password);
        made.add_basic(basic.as_str(), &token);
    }
    made
}

/// The same blocks that [`stream_manager_core::source::read_counter`] reads: 24 bits along the top edge.
pub fn stamp_counter(buffer: &mut gst::BufferRef, caps: &gst::Caps, number: u32) {
    let info = gst_video::VideoInfo::from_caps(caps).unwrap();
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info).unwrap();
    let (width, stride) = (info.width() as usize, info.stride()[0] as usize);
    let block = width / 24;
    for row in frame.plane_data_mut(0).unwrap().chunks_mut(stride).take(block) {
        for bit in 0..24 {
            row[bit * block..(bit + 1) * block].fill(if number >> bit & 1 == 1 { 235 } else { 16 });
        }
    }
}
