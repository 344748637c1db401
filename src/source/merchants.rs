//! Invented merchants, by category, with what a purchase there usually costs.

/// A category of merchants. Amounts are log-normal around `median_usd`.
pub(super) struct Category {
    pub(super) name: &'static str,
    /// Out of the sum of all weights.
    pub(super) weight: u32,
    pub(super) median_usd: f64,
    /// Standard deviation of the logarithm.
    pub(super) sigma: f64,
    pub(super) merchants: &'static [&'static str],
}

const fn category(
    name: &'static str,
    weight: u32,
    median_usd: f64,
    sigma: f64,
    merchants: &'static [&'static str],
) -> Category {
    Category { name, weight, median_usd, sigma, merchants }
}

pub(super) const CATEGORIES: &[Category] = &[
    category("groceries", 24, 38.0, 0.7, &["Green Basket", "Harbour Market", "Daily Pantry", "Mill Lane Foods"]),
    category(
        "dining",
        20,
        19.0,
        0.6,
        &["Corner Coffee", "Noodle House", "Trattoria Lucia", "Burger Yard", "Cafe Nord"],
    ),
    category("fuel", 10, 42.0, 0.4, &["Northway Fuel", "Ring Road Station", "Delta Petrol"]),
    category("online retail", 14, 34.0, 0.9, &["Parcelo", "Shoply", "Bright Electronics", "Paper & Ink"]),
    category("transport", 10, 9.5, 0.7, &["City Metro", "Quick Cab", "Rail East", "Bike Share"]),
    category("entertainment", 6, 16.0, 0.6, &["Cinema Star", "Stream Plus", "Arcade One", "Concert Hall"]),
    category("health", 5, 28.0, 0.8, &["Main Street Pharmacy", "Dental Care", "Vision Optics"]),
    category("utilities", 4, 85.0, 0.5, &["Municipal Water", "Volt Energy", "Telefonica Nova"]),
    category("clothing", 4, 55.0, 0.7, &["Linen & Wool", "Sole Shoes", "Urban Thread"]),
    category("travel", 2, 240.0, 0.9, &["Blue Sky Air", "Grand Hotel", "Sea Ferries"]),
    category("jewellery", 1, 410.0, 1.0, &["Golden Hour", "Silver & Sons"]),
];
