//! The highest stage: what answers on the three ports.

use std::sync::Arc;

use anyhow::{Result, bail};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use chordfs_history::recorder::LatencyMeters;
use chordfs_net::{
    admin_client::AdminClient,
    chunk_client::ChunkClient,
    limits::ByteBudget,
    rpc::{self, RpcLimits},
    transport::RemoteCaller,
};
use tower::ServiceExt;

use super::{core::Core, host::HostEnvironment, ports::Ports, services::Services};
use crate::{
    access::{Plane, checked},
    config::{self, ConfigEditor},
    console::{self, ConsoleOptions, OperatorForms, RingSource},
    drain::{self, Drain, DrainContext, DrainSettings},
    files::{DeleteAll, FileDefaults, FileService},
    history::{self, HistorySampler, OwnHistory, RingHistories},
    http::{
        admin::{AdminOptions, HealthSource, NodeAdmin, admin_router},
        admission::BodyLimits,
        answer_room::AnswerLimits,
        chunks::{self, ChunkPlane},
        confinement::Confinement,
        files::{FilesOptions, files_router},
        measured::{RequestMeters, measure},
        metrics::install_recorder,
        pool_events::PoolEvents,
        server::{self, IsNeighbour, ServerOptions},
    },
    identity::{self, NodeIdentity},
    node::{admin::LocalAdmin, arc_hand_over::ArcHandOver, ring_port::RingPort},
    operator::{self, AcceptedTokens},
    pool_size::{self, PoolEditor},
    sessions::{self, SessionList},
    status::{self, RingSurvey},
};

/// The planes are built before a port is opened, so that a call finds everything that it needs.
pub(super) struct Planes {
    ring: RingPort,
    files: Router,
    admin: Router,
    operators: AcceptedTokens,
    /// The drain that the administration port offers, for signals and the hosting platform.
    pub drain: Drain,
}

impl Planes {
    pub(super) fn build(core: &Core, services: &Services, host: Option<Arc<dyn HostEnvironment>>) -> Result<Self> {
        let (namespace, departure) = (services.namespace.clone(), core.departure.clone());
        let ring = RingPort { ring: core.ring.clone(), namespace, departure, revoked: core.revoked.clone() };
        if core.identity.is_none() && !core.config.security.plain_folder.is_empty() {
            bail!("--legacy-path binds nobody in a ring without identities: start the node without it");
        }
        let drain = Drain::new(drain_context(core, services), DrainSettings::default());
        let requests = Arc::<RequestMeters>::default();
        let service = file_service(core, services);
        let files = files_plane(core, services, service.clone()).layer(from_fn_with_state(requests.clone(), measure));
        let admin = admin_plane(core, services, service, requests, &drain, host)?;
        let operators = services.operators.clone();
        Ok(Self { ring, files, admin, operators, drain })
    }

    /// Opens the ports, and lets the node send its first message to the ring.
    pub(super) fn open(self, core: &Core, ports: Ports) -> Result<Drain> {
        let Core { tasks, stop, .. } = core;
        let answer_bytes = core.config.peer_memory_bytes / 4;
        let budget = ByteBudget::new(core.config.peer_memory_bytes - answer_bytes);
        let bodies = BodyLimits { budget: budget.clone(), ..BodyLimits::default() };
        let answers = AnswerLimits { budget: ByteBudget::new(answer_bytes), ..AnswerLimits::default() };
        let names = core.config.host_names.clone().into();
        let ring = core.ring.clone();
        let is_neighbour: IsNeighbour = Arc::new(move |address| ring.is_neighbour(address));
        let acceptor = core.acceptor();
        let options = ServerOptions {
            acceptor: acceptor.clone(),
            names,
            bodies,
            answers,
            is_neighbour,
            ..ServerOptions::default()
        };
        let stopped = || stop.clone().cancelled_owned();
        let (ring, limits) = (Arc::new(self.ring), RpcLimits::default());
        tasks.spawn(rpc::serve_within(ports.ring.listen()?, acceptor, ring, limits, budget, stop.clone()));
        let (files, admin) = match &core.identity {
            None => (self.files, self.admin),
            Some(_) => {
                let check = |plane, router| checked(router, plane, core.revoked.clone(), self.operators.clone());
                (check(Plane::Files, self.files), check(Plane::Admin, self.admin))
            }
        };
        tasks.spawn(server::serve(ports.files.listen()?, files, options.clone(), stopped()));
        tasks.spawn(server::serve(ports.admin.listen()?, admin, options, stopped()));
        core.answering.cancel();
        Ok(self.drain)
    }
}

fn file_service(core: &Core, services: &Services) -> FileService {
    let session = Arc::new(services.session.clone());
    let client = ChunkClient::new(core.router(), core.pool.clone(), core.config.operation_deadline);
    client.set_references(session.clone());
    FileService::over(session, client, FileDefaults::default()).reading(services.files_read.clone())
}

fn files_plane(core: &Core, services: &Services, files: FileService) -> Router {
    let events = PoolEvents::new(Arc::new(core.ring.clone()), core.stop.clone());
    core.tasks.spawn(events.clone().run());
    let (store, writer, traffic) = (core.store.clone(), services.writer.clone(), core.traffic.clone());
    let plane = ChunkPlane::new(store, writer, traffic);
    let confinement = || Arc::new(Confinement::new(Arc::new(services.session.clone())));
    let plane = if core.identity.is_some() { plane.confining(confinement()) } else { plane };
    let below = &core.config.security.plain_folder;
    let bound = (!below.is_empty()).then(|| files.below(below.clone()));
    let router = |service| files_router(service, FilesOptions::default(), events.clone());
    let all = chunks::routes(plane).merge(router(files));
    match bound {
        Some(bound) => all.layer(from_fn_with_state(router(bound), serve_plain_callers)),
        None => all,
    }
}

/// Answers plain connections from the files of their own folder.
async fn serve_plain_callers(State(bound): State<Router>, request: Request, next: Next) -> Response {
    match request.extensions().get::<RemoteCaller>() {
        // Its fallback answers what has no route, and a router never fails.
        Some(RemoteCaller::Plain) => bound.oneshot(request).await.into_response(),
        _ => next.run(request).await,
    }
}

fn admin_plane(
    core: &Core,
    services: &Services,
    files: FileService,
    requests: Arc<RequestMeters>,
    drain: &Drain,
    host: Option<Arc<dyn HostEnvironment>>,
) -> Result<Router> {
    let node: Arc<dyn NodeAdmin> = Arc::new(local_admin(core, services, requests.clone()));
    let survey = RingSurvey::new(core.ring.clone(), node.clone(), core.pool.clone());
    let own = own_history(core, services, node.clone(), requests);
    let histories = RingHistories::new(own.clone(), core.pool.clone());
    let sessions = SessionList::new(services.namespace.clone(), core.pool.clone());
    let metrics = install_recorder().map_err(anyhow::Error::msg)?;
    let host_routes = host.as_ref().map_or_else(Router::new, |host| host.routes());
    let health = host.map(|host| -> HealthSource { Arc::new(move || host.health()) });
    let session = Arc::new(services.session.clone());
    let forms = operator_forms(core, services, files, survey.clone());
    let of_operators = Router::new()
        .merge(services.scrub.routes())
        .merge(config::routes(forms.editor.clone()))
        .merge(pool_size::routes(forms.pool.clone()))
        .merge(console::form_routes(forms.clone()))
        .merge(drain::routes(drain.clone()))
        .merge(registry_routes(core, services))
        .merge(operator::routes(session));
    let router = admin_router(node, metrics, AdminOptions { health, ..AdminOptions::default() })
        .merge(host_routes)
        .merge(services.namespace.routes())
        .merge(status::routes(survey.clone()))
        .merge(sessions::routes(sessions.clone()))
        .merge(history::routes(own, histories.clone(), survey.clone()))
        .merge(console::routes(
            Arc::new(RingSource {
                survey,
                histories,
                sessions,
                pool: forms.pool.clone(),
                config: services.config.clone(),
            }),
            console::operator_sections(forms, services.config.clone(), services.operators.clone()),
            ConsoleOptions::default(),
            core.stop.clone(),
        ))
        .merge(drain::peer_routes(drain.clone()))
        .merge(identity_routes(core, services))
        .merge(operator::login_routes(services.operators.clone()))
        .merge(operator::guarded(of_operators, &services.operators));
    Ok(router)
}

fn identity_routes(core: &Core, services: &Services) -> Router {
    let session = || Arc::new(services.session.clone());
    let routes = |own: &Arc<NodeIdentity>| identity::routes(own.clone(), services.operators.clone(), session());
    core.identity.as_ref().map_or_else(Router::new, routes)
}

fn registry_routes(core: &Core, services: &Services) -> Router {
    let session = || Arc::new(services.session.clone());
    let routes = |own: &Arc<NodeIdentity>| identity::operator_routes(own, session(), core.ring.clone());
    core.identity.as_ref().map_or_else(Router::new, routes)
}

fn operator_forms(core: &Core, services: &Services, files: FileService, survey: RingSurvey) -> OperatorForms {
    let session = Arc::new(services.session.clone());
    OperatorForms {
        editor: ConfigEditor::new(session.clone(), services.config.clone()),
        pool: PoolEditor::new(session, Arc::new(survey.clone())),
        deletion: DeleteAll::new(files, core.stop.clone()),
        members: Arc::new(survey),
        client: AdminClient::new(core.pool.clone(), core.config.operation_deadline),
    }
}

/// Starts the task that fills this node's history.
fn own_history(core: &Core, services: &Services, node: Arc<dyn NodeAdmin>, requests: Arc<RequestMeters>) -> OwnHistory {
    let meters = LatencyMeters {
        reads: requests.reads.clone(),
        writes: requests.writes.clone(),
        names: services.namespace.operation_latency().clone(),
        log: services.namespace.append_latency().clone(),
    };
    let history = OwnHistory::new(core.config.history_period, meters);
    let sampler = HistorySampler { history: history.clone(), node, ring: core.ring.clone(), requests };
    let (answering, stop) = (core.answering.clone(), core.stop.clone());
    core.tasks.spawn(async move {
        answering.cancelled().await;
        sampler.run(stop).await;
    });
    history
}

fn local_admin(core: &Core, services: &Services, requests: Arc<RequestMeters>) -> LocalAdmin {
    LocalAdmin {
        stage: core.stage.clone(),
        ring: core.ring.clone(),
        store: core.store.clone(),
        disk: core.disk.clone(),
        capacity_bytes: core.config.store.capacity_bytes,
        traffic: core.traffic.clone(),
        departure: core.departure.clone(),
        namespace: services.namespace.clone(),
        session: services.session.clone(),
        scrub: services.scrub.clone(),
        config: services.config.clone(),
        zone: core.config.zone.clone(),
        requests,
        insecure: core.identity.is_none(),
        arcs: ArcHandOver { ring: core.ring.clone(), store: core.store.clone(), peers: core.peers.clone() },
    }
}

fn drain_context(core: &Core, services: &Services) -> DrainContext {
    DrainContext {
        stage: core.stage.clone(),
        ring: core.ring.clone(),
        store: core.store.clone(),
        peers: core.peers.clone(),
        pool: core.pool.clone(),
        traffic: core.traffic.clone(),
        departure: core.departure.clone(),
        namespace: services.namespace.clone(),
    }
}
