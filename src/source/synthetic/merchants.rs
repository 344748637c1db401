//! Invented merchants, by category, with what a purchase there usually costs and when it is made.

/// A category of merchants. Amounts are log-normal around `median_usd`.
pub(super) struct Category {
    pub(super) name: &'static str,
    /// ISO 18245.
    pub(super) mcc: &'static str,
    /// Out of the sum of all weights.
    pub(super) weight: u32,
    pub(super) median_usd: f64,
    /// Standard deviation of the logarithm.
    pub(super) sigma: f64,
    /// How much of it falls into the hours from 0, 3, 6, … on, on working days and at weekends.
    pub(super) hours: [[u32; 8]; 2],
    pub(super) merchants: &'static [&'static str],
}

/// At a counter, while it is open.
const SHOPPING: [[u32; 8]; 2] = [[0, 0, 2, 6, 8, 8, 6, 1], [0, 0, 1, 9, 11, 8, 3, 0]];
const MEALS: [[u32; 8]; 2] = [[1, 0, 5, 4, 12, 4, 12, 5], [2, 1, 2, 6, 10, 6, 14, 8]];
const COMMUTING: [[u32; 8]; 2] = [[1, 1, 12, 5, 4, 10, 7, 2], [3, 1, 2, 5, 6, 6, 6, 5]];
const EVENINGS: [[u32; 8]; 2] = [[1, 0, 0, 1, 3, 5, 14, 10], [2, 0, 0, 3, 8, 8, 16, 12]];
const ANY_TIME: [[u32; 8]; 2] = [[2, 1, 3, 6, 7, 7, 9, 7], [3, 1, 2, 6, 8, 8, 9, 7]];
const OFFICE: [[u32; 8]; 2] = [[0, 0, 2, 10, 10, 8, 2, 0], [0, 0, 0, 4, 3, 1, 0, 0]];

pub(super) const CATEGORIES: &[Category] = &[
    Category {
        name: "groceries",
        mcc: "5411",
        weight: 24,
        median_usd: 32.0,
        sigma: 0.8,
        hours: SHOPPING,
        merchants: &["Green Basket", "Harbour Market", "Daily Pantry", "Mill Lane Foods"],
    },
    Category {
        name: "dining",
        mcc: "5812",
        weight: 22,
        median_usd: 16.0,
        sigma: 0.7,
        hours: MEALS,
        merchants: &["Corner Coffee", "Noodle House", "Trattoria Lucia", "Burger Yard", "Cafe Nord"],
    },
    Category {
        name: "fuel",
        mcc: "5541",
        weight: 10,
        median_usd: 40.0,
        sigma: 0.4,
        hours: COMMUTING,
        merchants: &["Northway Fuel", "Ring Road Station", "Delta Petrol"],
    },
    Category {
        name: "online retail",
        mcc: "5999",
        weight: 14,
        median_usd: 34.0,
        sigma: 0.9,
        hours: ANY_TIME,
        merchants: &["Parcelo", "Shoply", "Bright Electronics", "Paper & Ink"],
    },
    Category {
        name: "transport",
        mcc: "4111",
        weight: 11,
        median_usd: 8.5,
        sigma: 0.7,
        hours: COMMUTING,
        merchants: &["City Metro", "Quick Cab", "Rail East", "Bike Share"],
    },
    Category {
        name: "entertainment",
        mcc: "7832",
        weight: 6,
        median_usd: 16.0,
        sigma: 0.6,
        hours: EVENINGS,
        merchants: &["Cinema Star", "Arcade One", "Concert Hall"],
    },
    Category {
        name: "digital goods",
        mcc: "5815",
        weight: 6,
        median_usd: 9.99,
        sigma: 0.5,
        hours: ANY_TIME,
        merchants: &["Stream Plus", "Tune Box", "Cloud Shelf"],
    },
    Category {
        name: "health",
        mcc: "5912",
        weight: 5,
        median_usd: 22.0,
        sigma: 0.8,
        hours: OFFICE,
        merchants: &["Main Street Pharmacy", "Dental Care", "Vision Optics"],
    },
    Category {
        name: "utilities",
        mcc: "4900",
        weight: 3,
        median_usd: 85.0,
        sigma: 0.5,
        hours: OFFICE,
        merchants: &["Municipal Water", "Volt Energy", "Telefonica Nova"],
    },
    Category {
        name: "clothing",
        mcc: "5651",
        weight: 4,
        median_usd: 52.0,
        sigma: 0.7,
        hours: SHOPPING,
        merchants: &["Linen & Wool", "Sole Shoes", "Urban Thread"],
    },
    Category {
        name: "travel",
        mcc: "4722",
        weight: 2,
        median_usd: 230.0,
        sigma: 0.9,
        hours: ANY_TIME,
        merchants: &["Blue Sky Air", "Grand Hotel", "Sea Ferries"],
    },
    Category {
        name: "jewellery",
        mcc: "5944",
        weight: 1,
        median_usd: 240.0,
        sigma: 1.0,
        hours: SHOPPING,
        merchants: &["Golden Hour", "Silver & Sons"],
    },
];
