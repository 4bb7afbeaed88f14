//! What a layer's call becomes: a refusal that is ready now, or the answer of the service behind.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use crate::proxy::body::ResponseBody;
use crate::proxy::respond;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::EdgeRefusal;

pin_project! {
    /// The future of a layer that may refuse, with the body that the service behind answers.
    #[project = Projection]
    pub enum Reply<F, R> {
        /// The request stops here.
        Refused {
            response: Option<Response<R>>,
        },
        /// The request has gone on.
        Passed {
            #[pin]
            answer: F,
        },
    }
}

impl<F, R: From<ResponseBody>> Reply<F, R> {
    /// Refuses, and counts it.
    pub(super) fn refuse(worker: &Worker, refusal: EdgeRefusal) -> Self {
        worker.edge.refused(refusal);
        Self::Refused {
            response: Some(respond::refused(refusal).map(R::from)),
        }
    }
}

impl<F, R> Future for Reply<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            Projection::Refused { response } => {
                let response = response.take();
                Poll::Ready(Ok(response.expect("a future is not polled after its end")))
            }
            Projection::Passed { answer } => answer.poll(cx),
        }
    }
}
