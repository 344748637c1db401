//! Who may have how many connections: all clients together, and those of one address.
//!
//! One address never gets all places, so that whoever takes too many locks out nobody but its neighbours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::Limits;

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0} connections are open, which is the limit")]
    All(usize),
    #[error("{0} connections of this address are open, which is the limit for one")]
    Address(usize),
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The places of all connections.
#[derive(Clone, Debug)]
pub(super) struct Places {
    max: usize,
    max_of_address: usize,
    taken: Arc<Mutex<Taken>>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Places {
        let (max, max_of_address) = (limits.connections_max, limits.connections_per_address_max);
        Places { max, max_of_address, taken: Arc::default() }
    }

    /// A place for a client from `address`.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, Refusal> {
        let address = counted_as(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max {
            return Err(Refusal::All(taken.all));
        }
        let of_address = taken.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.max_of_address {
            return Err(Refusal::Address(of_address));
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Ok(Place { address, taken: self.taken.clone() })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        let left = taken.by_address.get(&self.address).map_or(0, |count| count - 1);
        match left {
            0 => taken.by_address.remove(&self.address),
            left => taken.by_address.insert(self.address, left),
        };
    }
}

/// A host has all addresses of an IPv6 network of 64 bits to choose from: they count as one.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn places(connections_max: usize, connections_per_address_max: usize) -> Places {
        Places::new(&Limits { connections_max, connections_per_address_max, ..Limits::default() })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_never_gets_the_places_that_are_left_for_others_and_gives_its_own_back() {
        let places = places(3, 2);
        let (first, second) = (places.take(address("10.0.0.1")).unwrap(), places.take(address("10.0.0.1")).unwrap());
        assert_eq!(places.take(address("10.0.0.1")).unwrap_err(), Refusal::Address(2));
        let third = places.take(address("10.0.0.2")).unwrap();
        assert_eq!(places.take(address("10.0.0.3")).unwrap_err(), Refusal::All(3));
        drop((first, third));
        assert_eq!(places.taken(), 1);
        drop((places.take(address("10.0.0.1")).unwrap(), second));
        assert_eq!(places.taken(), 0);
        assert!(places.taken.lock().unwrap().by_address.is_empty());
    }

    #[test]
    fn a_mapped_address_is_the_same_and_a_network_of_64_bits_is_one() {
        let places = places(9, 1);
        let _places = [places.take(address("10.0.0.1")).unwrap(), places.take(address("2001:db8:0:1::1")).unwrap()];
        assert!(places.take(address("::ffff:10.0.0.1")).is_err());
        assert!(places.take(address("2001:db8:0:1:ffff::2")).is_err());
        assert!(places.take(address("2001:db8:0:2::1")).is_ok());
    }
}
