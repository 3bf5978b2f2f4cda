//! Noise over the pictures of a suite, so that a model which is at its ceiling has headroom: change then shows both ways.

use super::Family;
use crate::rng::Rng;
use crate::tasks::text_form::text_form;
use image::RgbImage;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most noise that can be asked for.
const MOST: u32 = 1000;

/// Standard deviation of the noise of each family, of 255; families without an entry have none. Written `ocr:80,pope:180`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Noise(Vec<(Family, u32)>);

impl Noise {
    /// No family has any.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// That of a family, of 255.
    pub fn of(&self, family: Family) -> u32 {
        self.0.iter().find(|(other, _)| *other == family).map_or(0, |(_, sd)| *sd)
    }
}

impl FromStr for Noise {
    type Err = String;

    fn from_str(text: &str) -> Result<Noise, String> {
        let mut all: Vec<(Family, u32)> = Vec::new();
        for part in text.split(',') {
            let bad = || {
                format!("`{part}`: write NAME:SD, a family and the standard deviation of its noise, from 1 to {MOST}")
            };
            let (name, sd) = part.split_once(':').ok_or_else(bad)?;
            let family = Family::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| {
                format!("no family is named `{name}`; there are: {}", Family::ALL.map(Family::name).join(", "))
            })?;
            let sd = sd.parse().ok().filter(|sd| (1..=MOST).contains(sd)).ok_or_else(bad)?;
            if all.iter().any(|(other, _)| *other == family) {
                return Err(format!("`{name}` is named twice"));
            }
            all.push((family, sd));
        }
        Ok(Noise(all))
    }
}

text_form!(Noise);

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(family, sd)| format!("{}:{sd}", family.name())).collect();
        f.write_str(&parts.join(","))
    }
}

/// Add independent noise of standard deviation `sd` to every value of a picture, and clamp to 0..=255. Twelve uniform numbers make a nearly normal
/// one (Irwin-Hall), the same on every machine.
pub fn add_noise(picture: &mut RgbImage, sd: u32, rng: &mut Rng) {
    for value in picture.iter_mut() {
        let normal = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        *value = (f32::from(*value) + normal * sd as f32).round().clamp(0.0, 255.0) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn noise_has_the_spread_that_is_asked_for_and_is_read_as_it_is_written() {
        let mut picture = RgbImage::from_pixel(60, 60, image::Rgb([128; 3]));
        add_noise(&mut picture, 20, &mut rng::stream(1, "noise", &[]));
        let values: Vec<f64> = picture.iter().map(|&value| f64::from(value) - 128.0).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let sd = (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 1.0 && (sd - 20.0).abs() < 1.0, "mean {mean}, sd {sd}");
        let noise: Noise = "ocr:80,pope:180".parse().unwrap();
        assert_eq!(
            (noise.of(Family::Ocr), noise.of(Family::Doc), noise.to_string().as_str()),
            (80, 0, "ocr:80,pope:180")
        );
        for bad in ["", "ocr", "ocr:0", "ocr:1001", "ocr:x", "sky:3", "ocr:3,ocr:4"] {
            assert!(bad.parse::<Noise>().is_err(), "{bad}");
        }
    }
}
