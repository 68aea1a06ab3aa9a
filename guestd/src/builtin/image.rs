//! Work on a picture: draw, encode, decode, blur, turn, encode. Whole numbers alone, so that the checksum is the same on every machine.

use super::{Cost, Problem, at_most, mix, number};
use std::io::{Cursor, Write};
use std::time::Duration;

/// How far a point is blurred, in points to each side.
const RADIUS: usize = 4;
/// How often it is blurred.
const BLURS: usize = 3;

/// A square picture, three bytes (red, green, blue) a point.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    size: usize,
    bytes: Vec<u8>,
}

/// `[SIZE]`
pub(super) fn run(args: &[String], out: &mut dyn Write) -> Result<(), Problem> {
    at_most(args, 1)?;
    let size = number(args, 0, "SIZE", 64..=4096, 512)?;
    let drawn = Picture::draw(size);
    let first = drawn.encode()?;
    let mut picture = Picture::decode(&first)?;
    if picture != drawn {
        return Err(Problem::Failed("what was decoded is not what was encoded".into()));
    }
    for _ in 0..BLURS {
        picture = picture.blurred();
    }
    picture = picture.turned();
    let second = picture.encode()?;
    writeln!(
        out,
        "{size} x {size}: {} bytes, blurred and turned {} bytes, checksum {:08x}",
        first.len(),
        second.len(),
        crc32fast::hash(&picture.bytes)
    )?;
    Ok(())
}

/// As many points more, as much time more.
pub(super) fn cost(args: &[String]) -> Result<Cost, Problem> {
    at_most(args, 1)?;
    let size: u64 = number(args, 0, "SIZE", 64..=4096, 512)?;
    let output = format!("{size} x {size}: simulated\n");
    Ok(Cost { cpu: Duration::from_nanos(500 * size * size), output })
}

impl Picture {
    /// Rings and a gradient, with some grain.
    fn draw(size: usize) -> Self {
        let middle = size / 2;
        let mut bytes = Vec::with_capacity(size * size * 3);
        for y in 0..size {
            for x in 0..size {
                let (dx, dy) = (x.abs_diff(middle), y.abs_diff(middle));
                let ring = (dx * dx + dy * dy) * 16 / size;
                let grain = (mix((y * size + x) as u64) % 16) as usize;
                // casts keep the lowest eight bits: bands of colour
                bytes.extend([(x * 255 / size) as u8, (ring + grain) as u8, (y * 255 / size + grain) as u8]);
            }
        }
        Picture { size, bytes }
    }

    fn encode(&self) -> Result<Vec<u8>, Problem> {
        let failed = |e: png::EncodingError| Problem::Failed(format!("cannot encode: {e}"));
        let side = u32::try_from(self.size).map_err(|e| Problem::Failed(e.to_string()))?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, side, side);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.bytes).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(file)
    }

    fn decode(file: &[u8]) -> Result<Self, Problem> {
        let failed = |e: png::DecodingError| Problem::Failed(format!("cannot decode: {e}"));
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().map_err(failed)?;
        let size = reader.info().width as usize;
        let mut bytes = vec![0; size * size * 3];
        reader.next_frame(&mut bytes).map_err(failed)?;
        Ok(Picture { size, bytes })
    }

    /// Each point becomes the mean of its neighbours: along the lines, then along the columns.
    fn blurred(&self) -> Self {
        let lines = self.blurred_along(3, self.size * 3);
        lines.blurred_along(self.size * 3, 3)
    }

    /// `step` bytes lead to the next point, `stride` bytes to the next line of them.
    fn blurred_along(&self, step: usize, stride: usize) -> Self {
        let mut bytes = vec![0; self.bytes.len()];
        for line in 0..self.size {
            for colour in 0..3 {
                let at = |i: usize| line * stride + i * step + colour;
                let (mut sum, mut from, mut to) = (0u32, 0, 0);
                for i in 0..self.size {
                    while to < self.size.min(i + RADIUS + 1) {
                        sum += u32::from(self.bytes[at(to)]);
                        to += 1;
                    }
                    while from + RADIUS < i {
                        sum -= u32::from(self.bytes[at(from)]);
                        from += 1;
                    }
                    // a mean of bytes is a byte
                    bytes[at(i)] = (sum / (to - from) as u32) as u8;
                }
            }
        }
        Picture { size: self.size, bytes }
    }

    /// A quarter turn to the right.
    fn turned(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for y in 0..self.size {
            for x in 0..self.size {
                let at = ((self.size - 1 - x) * self.size + y) * 3;
                bytes.extend_from_slice(&self.bytes[at..at + 3]);
            }
        }
        Picture { size: self.size, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::Picture;
    use crate::builtin::tests::run;

    #[test]
    fn the_same_picture_each_time() {
        let once = run("image", &["64"]).expect("it runs");
        assert_eq!(once, run("image", &["64"]).expect("it runs"));
        assert!(once.starts_with("64 x 64: ") && once.contains("checksum "), "{once}");
    }

    #[test]
    fn four_turns_are_none_and_a_blur_keeps_one_colour() {
        let drawn = Picture::draw(65);
        assert_ne!(drawn.turned(), drawn);
        assert_eq!(drawn.turned().turned().turned().turned(), drawn);
        let grey = Picture { size: 70, bytes: vec![77; 70 * 70 * 3] };
        assert_eq!(grey.blurred(), grey);
        assert_ne!(drawn.blurred(), drawn);
    }
}
