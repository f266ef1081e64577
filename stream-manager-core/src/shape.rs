//! Polygons and lines in a picture: whether a point lies in one, whether a way crosses one, whether they are drawn as they should be.
//!
//! Points are `[x, y]` relative to the picture, 0 to 1, `y` downwards.

/// A point in a picture.
pub type Point = [f32; 2];

/// The corners of a zone at most.
pub const MOST_CORNERS: usize = 64;
/// A zone has at least so much of the picture.
const LEAST_AREA: f64 = 1e-5;
/// A line is at least so long.
const LEAST_LENGTH: f64 = 1e-3;

fn wide(point: Point) -> [f64; 2] {
    point.map(f64::from)
}

/// Twice the area to the left of the way from `a` over `b` to `c`; positive where `c` lies to the right, as one sees it on a screen.
fn turn(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

fn edges(polygon: &[Point]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
    polygon.iter().zip(polygon.iter().cycle().skip(1)).map(|(a, b)| (wide(*a), wide(*b)))
}

/// Whether a point lies in a polygon.
pub fn contains(polygon: &[Point], point: Point) -> bool {
    let [x, y] = wide(point);
    let mut inside = false;
    for (a, b) in edges(polygon) {
        if (a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0] {
            inside = !inside;
        }
    }
    inside
}

/// A polygon's area, in parts of the picture.
pub fn area(polygon: &[Point]) -> f64 {
    edges(polygon).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>().abs() / 2.0
}

/// Whether two ways cross or touch.
pub fn meet(one: [Point; 2], other: [Point; 2]) -> bool {
    segments_meet(one.map(wide), other.map(wide))
}

fn segments_meet([a, b]: [[f64; 2]; 2], [c, d]: [[f64; 2]; 2]) -> bool {
    let on = |a: [f64; 2], b: [f64; 2], p: [f64; 2]| {
        (0..2).all(|i| p[i] >= a[i].min(b[i]) && p[i] <= a[i].max(b[i]))
    };
    let (c_side, d_side, a_side, b_side) = (turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b));
    if ((c_side > 0.0 && d_side < 0.0) || (c_side < 0.0 && d_side > 0.0))
        && ((a_side > 0.0 && b_side < 0.0) || (a_side < 0.0 && b_side > 0.0))
    {
        return true;
    }
    (c_side == 0.0 && on(a, b, c))
        || (d_side == 0.0 && on(a, b, d))
        || (a_side == 0.0 && on(c, d, a))
        || (b_side == 0.0 && on(c, d, b))
}

/// How far a point is from the line through two others: positive to its right, as one sees it who looks from the first to the second.
pub fn beside(line: [Point; 2], point: Point) -> f32 {
    let [a, b] = line.map(wide);
    let length = (b[0] - a[0]).hypot(b[1] - a[1]);
    if length > 0.0 { (turn(a, b, wide(point)) / length) as f32 } else { 0.0 }
}

fn in_picture(points: &[Point]) -> Result<(), String> {
    match points.iter().flatten().find(|v| !(0.0..=1.0).contains(*v)) {
        Some(value) => Err(format!("{value} is outside the picture; expected 0 to 1")),
        None => Ok(()),
    }
}

/// What is wrong with a polygon, and what would be right.
///
/// # Errors
/// If it has too few or too many corners, leaves the picture, crosses itself, or has no area.
pub fn check_polygon(polygon: &[Point]) -> Result<(), String> {
    let corners = polygon.len();
    if !(3..=MOST_CORNERS).contains(&corners) {
        return Err(format!("it has {corners} corners; expected 3 to {MOST_CORNERS}"));
    }
    in_picture(polygon)?;
    let all: Vec<_> = edges(polygon).map(|(a, b)| [a, b]).collect();
    if let Some(n) = all.iter().position(|side| side[0] == side[1]) {
        return Err(format!("corner {} is the one before again", (n + 1) % corners));
    }
    for (n, one) in all.iter().enumerate() {
        for (m, other) in all.iter().enumerate().skip(n + 1) {
            let neighbours = m == n + 1 || (n == 0 && m + 1 == corners);
            // Neighbours have a corner in common, and nothing else unless one goes back over the other.
            let wrong = if neighbours {
                let (before, corner, behind) =
                    if m == n + 1 { (one[0], one[1], other[1]) } else { (other[0], other[1], one[1]) };
                let back = (before[0] - corner[0]) * (behind[0] - corner[0])
                    + (before[1] - corner[1]) * (behind[1] - corner[1]);
                turn(before, corner, behind) == 0.0 && back > 0.0
            } else {
                segments_meet(*one, *other)
            };
            if wrong {
                return Err(format!(
                    "it crosses itself: the side behind corner {n} and the one behind corner {m}; expected corners in order around it"
                ));
            }
        }
    }
    if area(polygon) < LEAST_AREA {
        return Err("it has no area; expected a part of the picture".into());
    }
    Ok(())
}

/// What is wrong with a line, and what would be right.
///
/// # Errors
/// If it leaves the picture or has no length.
pub fn check_line(line: [Point; 2]) -> Result<(), String> {
    in_picture(&line)?;
    let [a, b] = line.map(wide);
    if (b[0] - a[0]).hypot(b[1] - a[1]) < LEAST_LENGTH {
        return Err("it has no length; expected two different points".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{Area as _, Contains as _, Distance as _, Intersects as _, Validation as _};
    use proptest::prelude::*;

    fn polygon_of(points: &[Point]) -> geo::Polygon<f64> {
        let ring = points.iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect::<Vec<_>>();
        geo::Polygon::new(ring.into(), vec![])
    }

    fn line_of(line: [Point; 2]) -> geo::Line<f64> {
        let [a, b] = line.map(wide);
        geo::Line::new((a[0], a[1]), (b[0], b[1]))
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |points: &[Point]| check_polygon(points).unwrap_err();
        assert!(said(&[[0.0, 0.0], [1.0, 1.0]]).contains("2 corners; expected 3 to 64"));
        assert!(said(&[[0.0, 0.0], [1.2, 0.0], [1.0, 1.0]]).contains("1.2 is outside"));
        assert!(said(&[[0.0, 0.0], [f32::NAN, 0.0], [1.0, 1.0]]).contains("NaN is outside"));
        let bow = [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]];
        assert!(
            said(&bow).starts_with("it crosses itself: the side behind corner 0 and the one behind corner 2")
        );
        assert!(said(&[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]).contains("crosses itself"));
        assert!(said(&[[0.1, 0.1], [0.1, 0.1], [0.5, 0.6]]).contains("corner 1 is the one before again"));
        assert!(said(&[[0.0, 0.0], [0.0005, 0.0], [0.0005, 0.001]]).contains("no area"));
        assert_eq!(check_polygon(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]), Ok(()));
        assert!(check_line([[0.5, 0.5], [0.5, 0.5]]).unwrap_err().contains("no length"));
        assert!(check_line([[0.5, 0.5], [0.5, -0.1]]).unwrap_err().contains("-0.1 is outside"));
        assert_eq!(check_line([[0.0, 0.5], [1.0, 0.5]]), Ok(()));
    }

    #[test]
    fn right_is_right_as_one_looks_along() {
        // From the bottom to the top: right is right. From left to right: right is down.
        assert_eq!(beside([[0.5, 1.0], [0.5, 0.0]], [0.75, 0.5]), 0.25);
        assert_eq!(beside([[0.0, 0.5], [1.0, 0.5]], [0.3, 0.75]), 0.25);
        assert_eq!(beside([[0.0, 0.5], [1.0, 0.5]], [0.3, 0.25]), -0.25);
    }

    fn part() -> impl Strategy<Value = f32> {
        // Also points that lie on each other's lines.
        prop_oneof![0.0f32..=1.0, prop::sample::select(vec![0.0f32, 0.25, 0.5, 0.75, 1.0])]
    }

    fn point() -> impl Strategy<Value = Point> {
        (part(), part()).prop_map(|(x, y)| [x, y])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn inside_is_what_the_reference_says(mut ways in prop::collection::vec((0.0f32..std::f32::consts::TAU, 0.05f32..0.5), 3..12), at in point()) {
            // As a star around the middle: it does not cross itself.
            ways.sort_by(|a, b| a.0.total_cmp(&b.0));
            let corners: Vec<Point> =
                ways.iter().map(|(angle, far)| [0.5 + far * angle.cos(), 0.5 + far * angle.sin()]).collect();
            prop_assume!(check_polygon(&corners).is_ok());
            let reference = polygon_of(&corners);
            prop_assert!((area(&corners) - reference.unsigned_area()).abs() < 1e-9);
            let here = geo::Point::new(f64::from(at[0]), f64::from(at[1]));
            // On the edge both are right.
            let edge = reference.exterior().lines().map(|line| geo::Euclidean.distance(&line, &here)).fold(f64::MAX, f64::min);
            prop_assume!(edge > 1e-9);
            prop_assert_eq!(contains(&corners, at), reference.contains(&here));
        }

        #[test]
        fn polygons_are_good_or_not_as_the_reference_says(corners in prop::collection::vec(point(), 3..7)) {
            let told = check_polygon(&corners);
            // Without an area it is none, whatever it crosses.
            prop_assume!(area(&corners) > 1e-4 && !told.as_ref().is_err_and(|e| e.contains("the one before")));
            prop_assert_eq!(told.is_ok(), polygon_of(&corners).is_valid(), "{:?}", told);
        }

        #[test]
        fn ways_cross_where_the_reference_says(a in point(), b in point(), c in point(), d in point()) {
            prop_assert_eq!(meet([a, b], [c, d]), line_of([a, b]).intersects(&line_of([c, d])));
            prop_assert_eq!(meet([a, b], [c, d]), meet([d, c], [a, b]));
        }
    }
}
