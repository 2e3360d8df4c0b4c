//! Asking from a plain thread.
//!
//! Knows: the same calls as [`Client`], without async. Refuses to know: how they work.

use super::{CALL_DEADLINE, Client, RawCall, Watch, last_answer};
use crate::blocking::wait;
use crate::link::{Dialer, LinkFacts, Purpose};
use crate::message;
use crate::verify::Expect;
use base::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Asks the other end of a link from plain threads; any number of them at a time.
pub struct BlockingClient<Q, A> {
    client: Client<Q, A>,
    runtime: Handle,
}

impl<Q, A> Clone for BlockingClient<Q, A> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<Q, A> fmt::Debug for BlockingClient<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl<Q: Serialize, A: DeserializeOwned> BlockingClient<Q, A> {
    /// The same client for threads. `runtime` is the one the client's link lives on.
    pub const fn new(client: Client<Q, A>, runtime: Handle) -> Self {
        Self { client, runtime }
    }

    /// Dials and returns a client.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub fn dial(runtime: &Handle, dialer: &Dialer, address: &str, expect: Expect) -> Result<Self>
    where
        Q: 'static,
        A: 'static,
    {
        let (dialer, address) = (dialer.clone(), address.to_owned());
        let client = wait(runtime, async move {
            dialer
                .dial(&address, expect, Purpose::Calls)
                .await
                .map(Client::new)
        })??;
        Ok(Self {
            client,
            runtime: runtime.clone(),
        })
    }

    /// As [`Client::call`].
    ///
    /// # Errors
    /// As [`Client::call`]; `Cancelled` where the program shuts down.
    pub fn call(&self, request: &Q) -> Result<A> {
        self.call_within(request, CALL_DEADLINE)
    }

    /// As [`Client::call_within`].
    ///
    /// # Errors
    /// As [`BlockingClient::call`].
    pub fn call_within(&self, request: &Q, deadline: Duration) -> Result<A> {
        let version = self.facts().version;
        let bytes = message::encode(version, request)?;
        let shared = Arc::clone(&self.client.shared);
        let answer = wait(&self.runtime, last_answer(shared, bytes, deadline))??;
        message::decode(version, &answer)
    }

    /// As [`Client::watch`].
    ///
    /// # Errors
    /// As [`BlockingClient::call`].
    pub fn watch(&self, request: &Q) -> Result<BlockingWatch<A>>
    where
        Q: Sync + Send + Clone + 'static,
        A: 'static,
    {
        let (client, request) = (self.client.clone(), request.clone());
        let watch = wait(&self.runtime, async move { client.watch(&request).await })??;
        let Watch { call, version, .. } = watch;
        let runtime = self.runtime.clone();
        Ok(BlockingWatch {
            call: Some(call),
            version,
            runtime,
            words: PhantomData,
        })
    }

    /// The async client inside.
    pub const fn inner(&self) -> &Client<Q, A> {
        &self.client
    }
}

impl<Q, A> BlockingClient<Q, A> {
    /// What is known about the link.
    pub fn facts(&self) -> &LinkFacts {
        self.client.facts()
    }
}

/// The answers of one call, for a plain thread.
pub struct BlockingWatch<A> {
    call: Option<RawCall>,
    version: u16,
    runtime: Handle,
    words: PhantomData<fn() -> A>,
}

impl<A: DeserializeOwned> BlockingWatch<A> {
    /// The next answer; `None` after the last one. Waits as long as the link lives. Dropping the
    /// watch cancels the call.
    ///
    /// # Errors
    /// As [`Watch::next`]; `Cancelled` where the program shuts down.
    pub fn next_answer(&mut self) -> Result<Option<A>> {
        let Some(mut call) = self.call.take() else {
            return Err(Error::new(
                Kind::Cancelled,
                "protocol.runtime.gone",
                "the program is shutting down",
            ));
        };
        let (call, next) = wait(&self.runtime, async move {
            let next = call.next().await;
            (call, next)
        })?;
        self.call = Some(call);
        match next? {
            Some(bytes) => message::decode(self.version, &bytes).map(Some),
            None => Ok(None),
        }
    }
}
