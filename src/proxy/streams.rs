//! Beginning a request on a shared HTTP/2 connection.
//!
//! Apart from the attempt because few backends ask for it, and because finding a place is another
//! task than taking a connection: there may be one with room, one that somebody else is opening, or
//! none. A burst of requests must not open a connection each.

use std::rc::Rc;

use http::uri::Scheme;

use crate::policy::class::{Diversion, Failure};
use crate::snapshot::BackendPlan;
use crate::upstream::http1::upload::RequestBody;
use crate::upstream::http2::connection::{Connection, Place};
use crate::upstream::http2::connections::Demand;
use crate::upstream::http2::exchange::Exchange;
use crate::upstream::pool::Pool;

use super::attempt::{Call, ClientFault, NotOpened, Try, Unsuccessful, within};
use super::chance::Chance;
use super::headers;

impl Call<'_> {
    /// Begins the request on a stream of a connection to the pool's endpoint.
    pub(super) async fn begin_stream(
        &self,
        plan: &BackendPlan,
        pool: &Rc<Pool>,
        how: Try,
        chance: Chance,
        body: RequestBody,
    ) -> Result<Box<Exchange>, Unsuccessful> {
        let scheme = match plan.backend.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        };
        let without_host = pool.endpoint().address();
        let forwarding = self.forwarding(how, body.framing());
        let head = headers::http2_request(self.head, forwarding, scheme, without_host);
        let Ok(head) = head else {
            return Err(Unsuccessful::Client(ClientFault::Host));
        };
        let place = match self.find_place(plan, pool, chance).await {
            Ok(place) => place,
            Err(not_opened) => return Err(not_opened.with(body)),
        };
        let begun = Exchange::begin(place, head, body);
        begun
            .map(Box::new)
            .map_err(|failed| Unsuccessful::Failed(*failed))
    }

    async fn find_place(
        &self,
        plan: &BackendPlan,
        pool: &Pool,
        chance: Chance,
    ) -> Result<Place, NotOpened> {
        let demand = match chance.stale {
            Some(_) => Demand::Busy,
            None => Demand::Any,
        };
        let lifetime = pool.limits().max_lifetime;
        // Waiting for somebody else's connection takes no longer than opening one.
        self.deadline.set(plan.backend.settings.timeouts.connect);
        loop {
            let now = self.worker.deadlines.now();
            if let Some(place) = pool.shared().enter(demand, now, lifetime) {
                plan.attempts.connection_reused(self.worker.id);
                return Ok(place);
            }
            let Some(opening) = pool.shared().opening() else {
                break;
            };
            match within(&self.deadline, opening.ended()).await {
                Some(Ok(())) => {}
                Some(Err(failure)) => return Err(NotOpened::Heard(failure)),
                None => return Err(NotOpened::Heard(Failure::ConnectTimeout)),
            }
        }
        let opener = pool.shared().begin();
        match self.open_shared(plan, pool).await {
            Ok(connection) => {
                plan.attempts.connection_opened(self.worker.id);
                Ok(opener.succeeded(&connection))
            }
            Err(NotOpened::Failed(failure)) => {
                opener.failed(failure);
                Err(NotOpened::Failed(failure))
            }
            Err(not_tried) => Err(not_tried),
        }
    }

    async fn open_shared(
        &self,
        plan: &BackendPlan,
        pool: &Pool,
    ) -> Result<Rc<Connection>, NotOpened> {
        let permit = pool.acquire();
        let permit = permit.ok_or(NotOpened::NotTried(Diversion::PoolFull))?;
        let stream = self.open(plan, pool).await?;
        let opening = Connection::open(stream, permit, &self.worker.deadlines);
        let opened = match within(&self.deadline, opening).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(failure)) => {
                tracing::debug!(endpoint = pool.endpoint().address(), %failure, "not connected");
                Err(NotOpened::Failed(failure.failure()))
            }
            None => Err(NotOpened::Failed(Failure::ConnectTimeout)),
        };
        // Something else may listen there, and accepting a connection alone says nothing.
        pool.endpoint().set_reachable(opened.is_ok());
        opened
    }
}
